"""The words of the controlled world's posts and their summaries; nothing here has a value or a probability."""

OPENINGS = ("", "Hi all. ", "Throwaway account. ", "Long time reader. ", "I need advice. ", "Not sure where to begin. ")

# Who did what, and when: the event that a summary must get right.
WHO = (
    "My sister", "My brother", "My boss", "My neighbour", "My roommate", "My best friend", "My cousin", "My uncle",
    "My teacher", "My landlord",
)  # fmt: skip
DID = (
    "lost my bike", "ate my lunch", "forgot my birthday", "told my secret", "broke my laptop", "moved away",
    "sold my guitar", "lied about a job", "took my place", "played loud music", "cancelled our trip", "kept my money",
)  # fmt: skip
WHEN = ("last week", "yesterday", "two days ago", "on Monday", "last summer", "this morning", "a month ago", "at work")

# What the writer feels and asks.
FEELING = ("I am angry.", "I am sad.", "I feel tired of it.", "I am confused.", "I am worried.", "I feel guilty.")
QUESTION = (
    "Should I forgive them?", "Should I say something?", "Should I ask for money?", "Should I move out?",
    "Should I tell my mother?", "Should I wait?",
)  # fmt: skip

# What belongs in no summary.
CHATTER = (
    "It was raining at the time.", "I like tea in the morning.", "We live near a park.", "I am thirty years old.",
    "My cat was asleep.", "The bus was late again.", "I work in an office.", "English is not my first language.",
)  # fmt: skip
