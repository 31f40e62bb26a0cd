"""What the demo sends: everyday English on eight topics, and questions whose topic is known."""

from __future__ import annotations

TOPICS: dict[str, tuple[str, ...]] = {
    "cooking": (
        "Stir the onions slowly until they turn golden.",
        "Fresh basil goes into the sauce at the very end.",
        "The bread needs to rise for two hours before it is baked.",
        "Salt the water, then add the pasta.",
        "My grandmother's soup starts with a whole chicken, three carrots and a long, quiet afternoon on the stove.",
        "Use cold butter for a flaky pie crust.",
        "This curry is too spicy for the children.",
        "Whisk the eggs with sugar until the mixture is pale and thick.",
    ),
    "weather": (
        "Heavy rain is expected along the coast tonight.",
        "It snowed in April.",
        "The fog lifted shortly after nine in the morning.",
        "Strong winds tore the roof off the old barn while the storm moved slowly inland towards the mountains.",
        "Tomorrow will be sunny with a light breeze.",
        "The drought has lasted for three months.",
        "A thunderstorm woke the whole village.",
        "Temperatures fell below zero during the night.",
    ),
    "travel": (
        "The night train to Vienna leaves at ten.",
        "Our flight was cancelled, and the airline put us into a hotel near the airport.",
        "You need a passport that is valid for six more months.",
        "The ferry crosses the strait twice a day.",
        "We rented a small car and drove along the coast.",
        "Is breakfast included in the price of the room?",
        "Her suitcase was lost somewhere between Lisbon and Oslo, and turned up a week later without its handle.",
        "The museum is closed on Mondays.",
    ),
    "computers": (
        "The program crashed because the disk was full.",
        "Restart the router if the connection drops.",
        "She wrote a script that renames thousands of files at once.",
        "Back up the database before you run the migration.",
        "The new release fixes a memory leak in the web server that had troubled its users for almost a year.",
        "My laptop's battery lasts for eleven hours.",
        "A compiler turns source code into machine instructions.",
        "The test fails only on the build machine.",
    ),
    "money": (
        "The bank raised its interest rates again.",
        "How much does the monthly subscription cost?",
        "He paid off the mortgage after twenty-two years.",
        "Please send the invoice to our accounting department before the end of the month.",
        "Inflation eats up what we save.",
        "Shares of the company fell by nine percent.",
        "You can get a refund within thirty days.",
        "The tax return is due at the end of May.",
    ),
    "health": (
        "Drink plenty of water when you have a fever.",
        "The doctor prescribed antibiotics for ten days.",
        "A short walk after lunch lowers the blood sugar.",
        "Her knee still hurts when she climbs stairs.",
        "Nurses on the night shift sleep badly, and studies show that it harms their hearts in the long run.",
        "The vaccine protects against measles.",
        "He is allergic to peanuts.",
    ),
    "football": (
        "The goalkeeper saved two penalties in the final.",
        "Their striker scored in the last minute.",
        "The referee showed him a red card for the foul.",
        "After ninety minutes and extra time without a goal, the championship was decided on penalties.",
        "The coach changed the defence at half-time.",
        "Thousands of fans sang in the stadium.",
    ),
    "animals": (
        "A cat sleeps sixteen hours a day.",
        "The dog buried its bone under the apple tree.",
        "Storks return to the same nest every spring.",
        "Whales sing to one another across hundreds of kilometres of open ocean.",
        "Our hens lay five eggs a day.",
        "The horse refused to jump over the ditch.",
        "Bees visit thousands of flowers for one spoonful of honey.",
    ),
}
"""Sentences by topic."""

SENTENCES: tuple[str, ...] = tuple(sentence for group in TOPICS.values() for sentence in group)
"""All of them."""

TOPIC_OF: dict[str, str] = {sentence: topic for topic, group in TOPICS.items() for sentence in group}
"""The topic of each."""

QUERIES: tuple[tuple[str, str], ...] = (
    ("What should I cook for dinner?", "cooking"),
    ("Will I need an umbrella this evening?", "weather"),
    ("I want to book a trip abroad.", "travel"),
    ("The software has a bug.", "computers"),
    ("I would like my money back.", "money"),
    ("What helps against a cold?", "health"),
    ("Who won the soccer match?", "football"),
    ("My puppy loves to dig in the garden.", "animals"),
)
"""Questions, none of which shares its wording with a sentence, and the topic that the nearest sentence must have."""
