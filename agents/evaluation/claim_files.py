"""Claims as files: `results/claims/<name>.json`, in one of two forms.

The short form is one agent against a threshold or a peer: keys `agent`, `env`, `budget` and so on stand beside
`criterion` (`mean_at_least`, `each_seed_at_least`, `each_seed_at_most`, or `within_of_comparator`), `margin` (the
threshold, or the share of the comparator's |mean| by which ours may be worse) and `comparator`.

The long form has `arms`, fields of `claims.Arm` by label, and `criteria`, a list of the fields of `claims.Criterion`
(the contrast may be left out where there is one arm). Fields of arms that stand beside `arms` hold for all of them;
mappings are merged. With `envs`, such fields by name of an env (its id, unless the fields give another), every arm
runs on every env, and is named "label on env". `config_hashes` holds the digest of each agent's configuration, by arm;
`palaestra benchmark --register` writes it. The short form too may have `config`, `training`, `measures` and `metrics`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from palaestra.agents.evaluation.claims import Arm, Claim, Criterion

Made = TypeVar("Made")
Record = Mapping[str, Any]

_COMMON = ("name", "system", "statement", "seeds", "eval_episodes", "tuning_budget")
_SHORT_NEEDED = ("agent", "env", "metric", "criterion", "margin", "budget", "eval_every")
_SHORT_DEFAULTS: Record = {
    "preset": "auto",
    "config_hash": None,
    "env_kwargs": {},
    "comparator": None,
    "deterministic": True,
}
"""Part of the digest whether the file has them or not; what came later is part of it where the file has it."""
_SHORT_LATER = ("config", "training", "measures", "metrics")
_LONG_OPTIONAL = ("envs", "config_hashes", "deterministic", "metrics")
_ARM_FIELDS = tuple(part.name for part in dataclasses.fields(Arm) if part.name not in ("label", "world", "config_hash"))


def read_claims(folder: Path) -> list[Claim]:
    """Return the claims of a folder by name.

    Raises:
        ValueError: If a file is no valid claim or is not named after its claim; the message names the file.
    """
    claims = []
    for path in sorted(folder.glob("*.json")):
        try:
            claim = parse_claim(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        if claim.name != path.stem:
            raise ValueError(f"{path.name}: name={claim.name!r}; expected the name of the file")
        claims.append(claim)
    return claims


def parse_claim(text: str) -> Claim:
    """Return the claim of a JSON text.

    Raises:
        ValueError: If it is no JSON object, has unknown or missing keys, or is no valid claim.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"Claim: a {type(record).__name__}; expected a JSON object")
    return make_claim(record)


def make_claim(record: Record) -> Claim:
    """Return the claim of a record in either form; ValueError as above."""
    return _from_long(record) if "arms" in record else _from_short(record)


def with_registered(record: Record, config_hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return a claim's record with the digests of its agents' configurations, given by arm."""
    if "arms" in record:
        return {**record, "config_hashes": dict(config_hashes)}
    return {**record, "config_hash": config_hashes[record["agent"]]}


def _from_short(given: Record) -> Claim:
    _check_keys("Claim", given, (*_COMMON, *_SHORT_NEEDED), (*_SHORT_DEFAULTS, *_SHORT_LATER))
    record = {**_SHORT_DEFAULTS, **given}
    fields = {name: record[name] for name in (*_ARM_FIELDS, "config_hash") if name in record}
    arms = [Arm(label=record["agent"], **fields)]
    theirs = record["comparator"]
    if theirs is not None:
        _check_keys("comparator", theirs, ("agent",), ("config", "num_envs"))
        record["comparator"] = {"config": {}, "num_envs": 1, **theirs}
        config = {**record["comparator"]["config"], "num_envs": record["comparator"]["num_envs"]}
        shared = ("env", "env_kwargs", "measures", "budget", "eval_every")
        place = {name: record[name] for name in shared if name in record}
        arms.append(Arm(label=theirs["agent"], agent=theirs["agent"], config=config, **place))
    return _claim(record, arms, [_short_criterion(record, [arm.name for arm in arms])])


def _short_criterion(record: Record, arms: list[str]) -> Criterion:
    kind, margin, ours = record["criterion"], record["margin"], arms[0]
    compares = kind == "within_of_comparator"
    if compares != (record["comparator"] is not None):
        expected = "a comparator if and only if the criterion is within_of_comparator"
        raise ValueError(f"Claim: comparator={record['comparator']!r}; expected {expected}")
    options: dict[str, Record] = {
        "mean_at_least": {"at_least": margin},
        "each_seed_at_least": {"at_least": margin, "over": "each_seed"},
        "each_seed_at_most": {"at_most": margin, "over": "each_seed"},
        "within_of_comparator": {"at_least": -margin},
    }
    if kind not in options:
        raise ValueError(f"Claim: criterion={kind!r}; expected one of {sorted(options)}")
    contrast = {ours: 1.0, **{theirs: -1.0 for theirs in arms[1:]}}
    relative_to = arms[1] if compares else None
    return Criterion(metric=record["metric"], contrast=contrast, relative_to=relative_to, **options[kind])


def _from_long(record: Record) -> Claim:
    _check_keys("Claim", record, (*_COMMON, "arms", "criteria"), (*_LONG_OPTIONAL, *_ARM_FIELDS))
    shared = {name: record[name] for name in _ARM_FIELDS if name in record}
    hashes = dict(record.get("config_hashes", {}))
    arms = []
    for label, own in record["arms"].items():
        _check_keys(f"arm {label!r}", own, (), _ARM_FIELDS)
        for world, place in record.get("envs", {"": {}}).items():
            _check_keys(f"env {world!r}", place, (), _ARM_FIELDS)
            named = {"env": world} if world else {}
            fields = {"label": label, "world": world, **_merged(shared, named, place, own)}
            arm = _build(Arm, fields, f"arm {label!r}")
            arms.append(dataclasses.replace(arm, config_hash=hashes.pop(arm.name, None)))
    if hashes:
        raise ValueError(f"Claim: config_hashes of {sorted(hashes)}; expected none but of its arms")
    default = {"contrast": {arms[0].name: 1.0}} if len(arms) == 1 else {}
    criteria = [_build(Criterion, {**default, **fields}, "criterion") for fields in record["criteria"]]
    return _claim(record, arms, criteria)


def _claim(record: Record, arms: list[Arm], criteria: list[Criterion]) -> Claim:
    fields = {name: record[name] for name in (*_COMMON, "deterministic") if name in record}
    fields |= {"seeds": tuple(record["seeds"]), "metrics": tuple(record.get("metrics", ()))}
    return Claim(**fields, arms=tuple(arms), criteria=tuple(criteria), record=record)


def _merged(*records: Record) -> dict[str, Any]:
    """Return the fields of all records, later ones replacing earlier ones and mappings merged."""
    merged: dict[str, Any] = {}
    for record in records:
        for name, value in record.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = {**merged[name], **value} if both else value
    return merged


def _build(kind: type[Made], record: Record, where: str) -> Made:
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    needed = [part.name for part in fields if part.default is part.default_factory is dataclasses.MISSING]
    _check_keys(where, record, needed, [part.name for part in fields])
    return kind(**record)


def _check_keys(where: str, record: Any, needed: Any, optional: Any) -> None:
    given = set(record) if isinstance(record, Mapping) else None
    if given is None or not set(needed) <= given <= {*needed, *optional}:
        described = sorted(given) if given is not None else repr(record)
        raise ValueError(
            f"{where}: keys {described}; expected all of {sorted(needed)} and no others than {sorted(optional)}"
        )
