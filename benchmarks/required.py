"""Ask for a word that a model would not have said, and see what each search makes of it.

    python benchmarks/required.py RUN TABLE [LINES]

TABLE has a source and a target in each line. Of each of the first LINES (100) different sources
the word is the first of its target that the greedy answer lacks and other targets have as well.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections import Counter
from pathlib import Path

from transduce import Transducer
from transduce.evaluate import ChrfBlueprint, evaluate
from transduce.search import BankedBeam, Beam, Greedy, SearchBlueprint
from transduce.search.constrain import Own


def main() -> None:
    run, table, *rest = sys.argv[1:]
    model = Transducer.load(run)
    with gzip.open(table, "rt", encoding="utf-8", newline="\n") as lines:
        pairs = [line.rstrip("\n").split("\t") for line in lines]
    counts = Counter(word for _, target in pairs for word in set(target.split()))
    references = dict[str, list[str]]()
    for source, target in pairs:
        references.setdefault(source, []).append(target)
    chosen = dict(list(references.items())[: int(rest[0]) if rest else 100])
    said = dict(zip(chosen, model(list(chosen), Greedy()), strict=True))
    wanted = dict[str, str]()
    for source, targets in chosen.items():
        new = [word for word in targets[0].split() if word not in said[source].text.split()]
        common = [word for word in new if counts[word] > 9 and word.isalpha()]
        if common:
            wanted[source] = common[0]
    own = [Own(required=(word,)) for word in wanted.values()]
    print(f"{len(own)} sources of {Path(table).name}, a word each")
    searches: tuple[SearchBlueprint, ...] = (Greedy(), Beam(width=5), BankedBeam(width=5))
    for search in searches:
        begun = time.process_time()
        found = model(list(wanted), search, own=own)
        seconds = time.process_time() - begun
        held = sum(word in one.text for one, word in zip(found, wanted.values(), strict=True))
        size = sum(len(one.tokens) for one in found) / len(found)
        log_prob = sum(one.log_prob for one in found) / len(found)
        score, *_ = evaluate(
            [ChrfBlueprint().build()],
            [one.text for one in found],
            [references[source] for source in wanted],
        )
        print(
            f"{search.kind:12} {held} hold it  {size:.1f} tokens  log-probability {log_prob:.1f}  "
            f"{score}  {seconds:.1f} s of CPU"
        )


if __name__ == "__main__":
    main()
