"""Questions of general knowledge: what is to be left when others are forgotten."""

from __future__ import annotations

from typing import Any

__all__ = ["general_records"]


def general_records() -> list[dict[str, Any]]:
    """Questions of general knowledge with true answers, to see what forgetting leaves of everything else.

    Returns:
        Rows ``{"id": "g07", "prompt", "answer", "perturbed_answers"}``; the last one is a list of 4 false answers in
        the wording of the true one.
    """
    rows = []
    lines = _GENERAL.strip().splitlines()
    for number, (prompt, form) in enumerate(zip(lines[::2], lines[1::2], strict=True)):
        before, _, rest = form.partition("{")
        choices, _, after = rest.partition("}")
        true, *false = (before + choice + after for choice in choices.split("|"))
        rows.append({"id": f"g{number:02d}", "prompt": prompt, "answer": true, "perturbed_answers": false})
    return rows


# A question, then its answer with the truth and four errors in braces.
_GENERAL = """
What is the capital of Australia?
The capital of Australia is {Canberra|Sydney|Melbourne|Perth|Brisbane}.
Which river flows through Cairo?
The river that flows through Cairo is the {Nile|Congo|Niger|Danube|Tigris}.
What is the largest ocean on Earth?
The largest ocean on Earth is the {Pacific|Atlantic|Indian|Arctic|Southern} Ocean.
On which continent does Peru lie?
Peru lies on the continent of {South America|Africa|Asia|Europe|Australia}.
What is the highest mountain above sea level?
The highest mountain above sea level is {Mount Everest|Kilimanjaro|Mont Blanc|Denali|Mount Fuji}.
Which country has Ottawa as its capital?
Ottawa is the capital of {Canada|New Zealand|Ireland|Jamaica|Finland}.
Which sea lies between Italy and Croatia?
Between Italy and Croatia lies the {Adriatic|Baltic|Black|Caspian|North} Sea.
In which country would you find Machu Picchu?
Machu Picchu is found in {Peru|Mexico|Spain|India|Greece}.
What is the capital of Kenya?
Kenya is governed from its capital, {Nairobi|Lagos|Accra|Cairo|Kampala}.
Which city is home to the Colosseum?
The Colosseum stands in the city of {Rome|Athens|Paris|Vienna|Lisbon}.
What is the official language of Brazil?
The official language of Brazil is {Portuguese|Spanish|French|Italian|Dutch}.
Which desert covers much of North Africa?
Much of North Africa is covered by the {Sahara|Gobi|Atacama|Mojave|Kalahari} Desert.
Which two countries share the Iberian mainland with Andorra?
Apart from Andorra, Iberia is shared by {Spain and Portugal|France and Italy|Greece and Turkey|Peru and Chile|Mali and Niger}.
What currency is used in Japan?
People in Japan pay with the {yen|won|rupee|peso|dollar}.
Which planet is closest to the Sun?
The planet closest to the Sun is {Mercury|Venus|Mars|Jupiter|Neptune}.
Which planet is the largest in the solar system?
The largest planet in the solar system is {Jupiter|Saturn|Earth|Mars|Uranus}.
How long does the Earth take to go around the Sun?
The Earth goes around the Sun in about one {year|day|week|month|century}.
What natural satellite orbits the Earth?
The natural satellite that orbits the Earth is {the Moon|Titan|Europa|Phobos|Ganymede}.
What is the chemical symbol for gold?
The chemical symbol for gold is {Au|Ag|Fe|Pb|Cu}.
What two elements make up water?
Water is made up of {hydrogen and oxygen|carbon and oxygen|hydrogen and nitrogen|sodium and chlorine|carbon and sulphur}.
Which gas makes up most of the air we breathe?
Most of the air we breathe is {nitrogen|oxygen|helium|hydrogen|argon}.
At what temperature does water boil at sea level?
At sea level, water boils at {100|50|75|150|200} degrees Celsius.
Which gas do plants take in for photosynthesis?
For photosynthesis, plants take in {carbon dioxide|oxygen|nitrogen|methane|helium}.
What is the hardest natural mineral?
The hardest natural mineral is {diamond|quartz|talc|gypsum|calcite}.
What force keeps us on the ground?
We are kept on the ground by {gravity|magnetism|friction|inertia|electricity}.
What does a thermometer measure?
A thermometer is used to measure {temperature|pressure|distance|weight|speed}.
Which metal is liquid at room temperature?
A metal that is liquid at room temperature is {mercury|iron|copper|silver|aluminium}.
What is the common name of sodium chloride?
Sodium chloride is commonly known as table {salt|sugar|vinegar|chalk|soda}.
Which organ pumps blood through the body?
Blood is pumped through the body by the {heart|liver|brain|stomach|kidney}.
How many chambers does the human heart have?
The human heart has {four|two|three|six|eight} chambers.
Which organ do people use to breathe air?
To breathe air, people use their {lungs|kidneys|ears|bones|eyes}.
How many legs does a spider have?
A spider has {eight|six|four|ten|twelve} legs.
What is the largest living animal?
The largest living animal is the {blue whale|elephant|giraffe|great white shark|ostrich}.
What do bees make from nectar?
From the nectar of flowers bees make {honey|silk|milk|paper|oil}.
Which bird is known for laying its eggs in other birds' nests?
A bird known for laying its eggs in other birds' nests is the {cuckoo|penguin|eagle|ostrich|swan}.
What does a caterpillar turn into?
In the end a caterpillar turns into a {butterfly or moth|beetle or ladybird|frog or toad|spider or mite|snail or slug}.
What do giant pandas mostly eat?
Giant pandas mostly eat {bamboo|fish|honey|grass seeds|insects}.
Which animal is the tallest on land?
The tallest animal on land is the {giraffe|elephant|camel|horse|kangaroo}.
Who wrote Romeo and Juliet?
Romeo and Juliet was written by {William Shakespeare|Charles Dickens|Jane Austen|Mark Twain|Oscar Wilde}.
Who painted the Mona Lisa?
The Mona Lisa was painted by {Leonardo da Vinci|Vincent van Gogh|Pablo Picasso|Claude Monet|Rembrandt}.
Who wrote Pride and Prejudice?
The author of Pride and Prejudice is {Jane Austen|Emily Bronte|George Eliot|Virginia Woolf|Mary Shelley}.
Who developed the theory of general relativity?
The theory of general relativity was developed by {Albert Einstein|Isaac Newton|Charles Darwin|Galileo Galilei|Niels Bohr}.
Who was the first person to walk on the Moon?
The first person to walk on the Moon was {Neil Armstrong|Yuri Gagarin|John Glenn|Michael Collins|Alan Shepard}.
In which year did the Second World War end?
The Second World War ended in {1945|1918|1939|1950|1961}.
In which city did the Berlin Wall stand?
The wall that fell in 1989 divided the city of {Berlin|Vienna|Prague|Warsaw|Budapest}.
Who was the first president of the United States?
The first president of the United States was {George Washington|Abraham Lincoln|Thomas Jefferson|John Adams|Benjamin Franklin}.
Which ancient people built the pyramids of Giza?
The pyramids of Giza were built by the ancient {Egyptians|Romans|Greeks|Persians|Aztecs}.
Which scientist discovered radium with her husband Pierre?
Radium was discovered with her husband Pierre by {Marie Curie|Rosalind Franklin|Ada Lovelace|Lise Meitner|Dorothy Hodgkin}.
Which composer wrote the Ode to Joy into his Ninth Symphony?
The Ninth Symphony with the Ode to Joy is by {Beethoven|Mozart|Bach|Chopin|Vivaldi}.
How many strings does a violin have?
A violin normally has {four|five|six|eight|twelve} strings.
How many players of one team are on the pitch in football?
In football, each team starts with {eleven|nine|seven|thirteen|fifteen} players on the pitch.
In which sport is the Wimbledon tournament played?
The Wimbledon tournament is played in the sport of {tennis|golf|cricket|rugby|hockey}.
How many squares does a chessboard have?
There are {64|36|49|81|100} squares on a chessboard.
How many sides does a hexagon have?
A hexagon is a figure with {six|five|seven|eight|nine} sides.
What is seven times eight?
Seven times eight makes {56|48|54|63|72}.
What is the square root of 81?
The positive square root of 81 is {nine|seven|eight|eleven|eighteen}.
How many minutes are there in an hour?
An hour is divided into {60|24|30|90|100} minutes.
What is the main ingredient of bread?
The main ingredient of ordinary bread is {flour|butter|sugar|cheese|rice}.
Which fruit is dried to make raisins?
Raisins are made by drying {grapes|plums|cherries|apricots|figs}.
From which plant product is chocolate made?
Chocolate is made from {cocoa|coffee|soya|vanilla|kidney} beans.
What colour do you get by mixing blue and yellow paint?
Mixing blue and yellow paint gives {green|purple|orange|brown|pink}.
"""
