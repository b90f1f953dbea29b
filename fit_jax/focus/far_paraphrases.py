"""Far paraphrases of focus instructions: what people may say whose words training has not shown.

None uses a verb or a frame of the training paraphrases (`fit_jax.focus.instructions`). Among those of each kind are
unseen verbs, other names of the features, negations, indirect requests, a long instruction, and other languages (there
the features keep their English names, as in a message of someone who mixes languages).

Slots are those of all paraphrases. After `@` stands which of the feature's other names is meant, so far as the task
declares any; before it how several features are joined.
"""

FOCUS = (
    "let {focus} decide.",
    "only {focus} should count now.",
    "take {focus:@1} as your sole guide.",
    "answer by way of {focus:@2}.",
    "what matters to me is {focus:@1}.",
    "nothing except {focus} may sway you.",
    "your answer must not depend on anything but {focus:@1}.",
    "never mind the rest: all that should count is {focus}.",
    "would you mind going wherever {focus} leads?",
    "could you tell me what {focus:@1} would have you say?",
    "I wonder which answer {focus} would suggest.",
    "someone asked me what follows from {focus:@2}, and I am passing the question to you.",
    "what would you reply if {focus} were all you had?",
    "there are several things in this {item} that one could follow, and it is easy to mix them up. today a single one "
    "of them should settle the matter, namely {focus}. whatever else you notice along the way may well be true, but "
    "your answer should follow from {focus:@1} and from nothing besides.",
    "richte dich bei der Antwort allein nach: {focus:,}.",
    "pour répondre, tiens compte uniquement de ceci : {focus:,}.",
    "responde guiándote solo por esto: {focus:,}.",
)
IGNORE = (
    "treat {ignore} as noise.",
    "overlook {ignore:@1}.",
    "set no store by {ignore:or}.",
    "{ignore} must have no say in your answer.",
    "consider {ignore:@1} irrelevant.",
    "don't let {ignore:or@2} influence you.",
    "your answer must not depend on {ignore:or}.",
    "nothing should hang on {ignore:or@1}.",
    "could you keep {ignore:@1} out of it?",
    "it would help me if {ignore} played no part.",
    "what would you reply if you had never noticed {ignore:or}?",
    "I would rather you were not swayed by {ignore:or@2}.",
    "suppose that {ignore} had been different: your answer should remain what it is.",
    "in this {item} there is something that may catch your eye, and many people let themselves be led by it without "
    "meaning to. I am speaking of {ignore}. please answer as you would have answered if it had not been there at all, "
    "and do not let {ignore:or@1} tip the balance even where you are in doubt.",
    "lass Folgendes ganz außer Acht: {ignore:,}.",
    "ne tiens aucun compte de ceci : {ignore:,}.",
    "no tengas en cuenta lo siguiente: {ignore:,}.",
)
BOTH = (
    "let {focus} decide, and treat {ignore} as noise.",
    "overlook {ignore:@1} and follow {focus:@1}.",
    "give {focus} all the weight, and give none to {ignore:or@2}.",
    "{ignore} must have no say; let {focus:@2} settle the matter.",
    "don't let {ignore:or@1} influence you: it is {focus} that should count.",
    "not {ignore:or} but {focus} should determine what you say.",
    "your answer must not depend on {ignore:or@2}, only on {focus:@2}.",
    "whatever {ignore} may suggest, say what {focus} would suggest.",
    "could you follow {focus:@1} and keep {ignore:@1} out of it?",
    "what would you reply if {focus} were all you had, and you had never noticed {ignore:or}?",
    "suppose that {ignore} had been different: your answer should remain the same, for it should follow from {focus}.",
    "I wonder which answer {focus:@1} would suggest; I do not care about {ignore:or@1}.",
    "someone told me that {ignore} would settle the matter, but I would like to know what follows from {focus}.",
    "in this {item} there are two things that one could follow, and they may well lead to different answers. one of "
    "them is {ignore}; it may catch your eye, but today it should carry no weight at all. the other one is {focus}, "
    "and your answer should follow from {focus:@1} alone, even where that seems odd.",
    "richte dich allein nach: {focus:,}. lass ganz außer Acht: {ignore:,}.",
    "ne tiens aucun compte de ceci : {ignore:,}. réponds uniquement d'après cela : {focus:,}.",
    "no tengas en cuenta esto: {ignore:,}. responde guiándote solo por lo siguiente: {focus:,}.",
)
