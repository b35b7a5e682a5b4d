"""Topics to key-frame prompts, without a network and without a model: `giffusion inspire`.

    topics.py       what the user is interested in, from text
    vocabulary.py   what there is to show, and how it is said; `data/` has the words
    choice.py       choices that hang on a seed alone
    walk.py         topics and a vocabulary to sentences, neighbours of which share something
    plan.py         how many key frames, and where
    key_frames.py   sentences, or anybody's text, to key frames

The invariant: the same topics, seed and vocabulary give the same key frames on every machine, and
their text means them: nothing in it is read as a mark.
"""
