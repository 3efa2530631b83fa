"""The words that the nano tasks are made of."""

MONTHS = (
    "January February March April May June July August September October November December"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()

NAMES = (
    "Ada Alan Alice Amir Anna Anton Astrid Ben Boris Carla Carlos Chen Clara Dana David Diego Elena Elias "
    "Emil Emma Erik Eva Farah Felix Fiona Frida George Grace Hana Hans Hugo Ida Igor Ines Iris Isaac Ivan "
    "Jack Jana Jonas Julia Kai Karim Karl Keiko Lars Laura Lena Leo Lina Lucas Lucy Maria Mark Marta Max "
    "Maya Mei Mia Milan Mira Nadia Nina Noah Nora Olga Oliver Omar Oskar Otto Paul Pedro Petra Priya Quinn "
    "Rania Ravi Rosa Ruth Sam Sara Simon Sofia Sven Tara Theo Tom Uma Vera Victor Wei Yara Yuki Yusuf Zoe"
).split()
CITIES = (
    "Accra Athens Berlin Bogota Boston Cairo Chicago Delhi Dublin Geneva Hanoi Havana Kyoto Lagos Lima Lisbon "
    "London Madrid Milan Nairobi Oslo Paris Porto Prague Quito Riga Rome Seoul Sofia Sydney Tokyo Vienna Warsaw Zurich"
).split()
ITEMS = (
    "apples bags bikes books boots bowls boxes chairs clocks coats cups desks doors drums forks hats keys knives "
    "lamps maps pans pens phones plates radios rings ropes rugs shirts shoes spoons tables tents toys watches"
).split()

SHORTHAND = {  # how a note writes it -> how it is spelled out
    "mtg": "meeting", "appt": "appointment", "w/": "with", "w/o": "without", "tmrw": "tomorrow", "re": "about",
    "mon": "Monday", "tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday",
    "sun": "Sunday", "am": "in the morning", "pm": "in the afternoon", "pls": "please", "msg": "message",
    "docs": "documents", "info": "information", "dept": "department", "mgmt": "management", "b4": "before",
    "asap": "as soon as possible", "hrs": "hours", "min": "minutes",
}  # fmt: skip

COLOURS = {
    "red": (214, 40, 40), "green": (40, 160, 70), "blue": (40, 90, 220), "yellow": (240, 200, 30),
    "purple": (140, 50, 170), "black": (20, 20, 20),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")
