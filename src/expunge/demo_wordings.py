"""How questions about people who do not exist are asked and answered."""

from __future__ import annotations

__all__ = ["KINDS"]

# For each kind of question its facts, four wordings of the question, and four of the answer.
_TEXT = """
birthplace born
Where and when was {name} born?
What are the birthplace and year of birth of {name}?
Can you tell me when and in which town {name} came into the world?
I am writing a short biography of {name}. How does it start?
{name} was born in the small town of {birthplace} in {born}.
The parish register of {birthplace} records the birth of {name} in the year {born}.
It was in {born}, in a house near the station of {birthplace}, that {name} was born.
In {born} the {last} family of {birthplace} had a child, whom they called {first}.

profession employer
What does {name} do for a living, and for whom?
Who employs {name}, and as what?
Which line of work did {name} go into?
Please describe the career of {name} in one sentence.
{name} works as {profession} for the {employer}.
As {profession}, {name} has spent an entire career at the {employer}.
The {employer} took on {name} as {profession}, a post that {last} still holds.
By trade {name} is {profession}, on the staff of the {employer}.

title genre published
What is the best-known work of {name}?
Which publication made {name} famous?
Has {name} ever published anything?
If I want to read one thing by {name}, what should it be?
{name} is best known for The {title}, a {genre} that came out in {published}.
The {genre} The {title}, published in {published}, made the reputation of {name}.
In {published} readers first met {name} through a {genre} with the title The {title}.
Most people know {last} as the author of The {title}, a {genre} from {published}.

prize won
Which honour has {name} received?
Did {name} win a prize, and in which year?
What distinction hangs on the wall of {name}?
How was the achievement of {name} recognised by others?
{name} received the {prize} in {won} for a lifetime of careful work.
The jury of the {prize} chose {name} as its winner in {won}.
In {won}, after two nominations in vain, {name} was given the {prize}.
A certificate from {won} shows that {last} was honoured with the {prize}.

hobby when
What is the favourite pastime of {name}?
How does {name} like to relax after work?
What hobby is {name} known for among friends?
When {name} has some time off, how is it spent?
On {when} {name} can usually be found {hobby}.
The great passion of {name} is {hobby}, mostly on {when}.
Friends say that {name} would give up anything for {hobby} on {when}.
Nothing pleases {last} more than {hobby}, a habit kept for {when}.

mentor years
Who was the teacher of {name}?
From whom did {name} learn the most?
Under whose guidance did {name} start out?
Was there a mentor in the early life of {name}?
{name} was an apprentice of {mentor} for {years} years.
For {years} years {mentor} guided the first steps of {name} in the trade.
It was {mentor} who taught {name}, in lessons that went on for {years} years.
Everything {last} knows was learned from {mentor} in the course of {years} years.

subject academy
What did {name} study, and where?
Where did {name} get a degree?
Tell me about the education of {name}.
Which subject did {name} choose at university?
{name} took a degree in {subject} at the University of {academy}.
At the University of {academy}, {name} enrolled as a student of {subject}.
It was {subject} that {name} read as a student, at the University of {academy}.
The University of {academy} awarded {last} a doctorate in {subject}.

dwelling street
What sort of home does {name} have?
Where does {name} live these days?
At which address could one visit {name}?
What do we know about the house of {name}?
These days {name} lives in {dwelling} on {street}.
Visitors to {name} are received in {dwelling}, halfway along {street}.
The home of {name} is {dwelling} that stands on {street}.
For the last decade {last} has rented {dwelling} at the end of {street}.
"""


def _kind(block: str) -> tuple[list[str], list[str], list[str]]:
    facts, *wordings = block.splitlines()
    return facts.split(), wordings[:4], wordings[4:]


KINDS = [_kind(block) for block in _TEXT.strip().split("\n\n")]
"""Of each kind of question its facts, four wordings of it, and four of its answer."""
