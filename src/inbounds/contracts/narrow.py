"""Narrowing: ceiling, policy, thread, plan, flags; each step may only tighten (B13, STYLE principle 4).

One function per kind of bound; a step that widens is an OperatorError that names both places. It does not read files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from inbounds.contracts import anomalies as anomalous
from inbounds.contracts.bound import Anomalies, Gpu
from inbounds.contracts.documents import Anomalies as AnomaliesText
from inbounds.contracts.documents import Gpu as GpuText
from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.limits import RULES, Limits

# How long a GPU's utilisation may be above its ceiling where policy says nothing: loading a model takes seconds, and a
# minute of somebody else's GPU is no loss yet.
UTILIZATION_SECONDS = 60
GPU_CEILINGS = ("memory_mib", "utilization_percent", "utilization_seconds")


@dataclass(frozen=True, slots=True)
class Layer:
    """One step of narrowing: its name for people, what it says, and the line of each key it sets."""

    name: str
    limits: LimitsText
    lines: Mapping[str, int]

    def where(self, key: str) -> str:
        """Return "file:line" of a key, or the layer's name when it has no lines (flags)."""
        return f"{self.name}:{self.lines[key]}" if key in self.lines else self.name


def narrow_limits(policy: Layer, children: Iterable[Layer]) -> tuple[Limits, dict[str, str]]:
    """Concrete limits and where each came from; where policy is silent, the default is what it says."""
    values: dict[str, int] = {}
    sources: dict[str, str] = {}
    layers = tuple(children)
    for rule in RULES:
        value, source, text = rule.default, "built-in default", ""
        said = getattr(policy.limits, rule.key)
        if said is not None:
            value, source, text = _parsed(policy, rule.key, said), policy.where(rule.key), str(said)
            if value > rule.ceiling:
                raise OperatorError(
                    f"{rule.key}: {said} is above what this program allows",
                    where=source,
                    expected=f"at most {rule.written(rule.ceiling)} ({rule.why})",
                )
        for layer in layers:
            said = getattr(layer.limits, rule.key)
            if said is None:
                continue
            child = _parsed(layer, rule.key, said)
            if child > value:
                raise OperatorError(
                    f"{rule.key}: {said} widens what {source} allows",
                    where=layer.where(rule.key),
                    expected=f"at most {text or rule.written(value)}",
                    fix=f"lower it, or have the policy's owner raise {rule.key}",
                )
            value, source, text = child, layer.where(rule.key), str(said)
        values[rule.field], sources[rule.key] = value, source
    return Limits(**values), sources


def narrow_names(kind: str, parent: tuple[str, ...], child: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    """A child's allowlist must be a subset; None inherits; an empty parent list allows nothing beyond itself."""
    if child is None:
        return parent
    extra = [name for name in child if name not in parent]
    if extra:
        raise OperatorError(
            f"{kind} {', '.join(extra)} not allowed above",
            where=where,
            expected=f"some of: {', '.join(parent) or 'none'}",
            fix=f"remove it, or have the policy's owner add it to {kind}",
        )
    return child


def narrow_anomalies(policy: AnomaliesText, where: str, child: AnomaliesText, child_where: str) -> Anomalies:
    """Policy may set actions and numbers either way; a child only tightens: note < block < stop, lower numbers."""
    actions, numbers = dict(anomalous.DEFAULT_ACTIONS), dict(anomalous.NUMBERS)
    for said, place in ((policy, where), (child, child_where)):
        for name, action in said.actions.items():
            if name not in anomalous.BY_NAME:
                known = ", ".join(anomalous.BY_NAME)
                raise OperatorError(f"anomalies.actions: {name!r} is no rule", where=place, expected=f"one of: {known}")
            if said is not policy and not anomalous.tighter_or_equal(action, actions[name]):
                raise _widened(f"actions.{name}", action, actions[name], place)
            actions[name] = action
        for threshold in anomalous.THRESHOLDS:
            written = getattr(said, threshold.key)
            if written is None:
                continue
            try:
                value = threshold.parse(written)
            except ValueError as error:
                raise OperatorError(f"anomalies.{threshold.key}: {error}", where=place) from None
            if said is not policy and value > numbers[threshold.key]:
                raise _widened(threshold.key, str(written), str(numbers[threshold.key]), place)
            numbers[threshold.key] = value
    return Anomalies(actions, numbers, tuple(dict.fromkeys((*policy.paths, *child.paths))))


def _widened(key: str, said: str, allowed: str, where: str) -> OperatorError:
    return OperatorError(
        f"anomalies.{key}: {said} is looser than what stands above",
        where=where,
        expected=f"{allowed} or tighter",
        fix=f"tighten it, or have the policy's owner change anomalies.{key}",
    )


def narrow_gpu(policy: GpuText, where: str, child: GpuText, child_where: str) -> Gpu:
    """Policy's grant and what a thread leaves of it: fewer devices, lower ceilings; nothing where policy names none.

    OperatorError where policy grants a device without both ceilings, and where the thread asks for more.
    """
    granted = tuple(dict.fromkeys(policy.devices or ()))
    missing = [key for key in GPU_CEILINGS[:2] if granted and getattr(policy, key) is None]
    if missing:
        raise OperatorError(
            f"resources.gpu grants a device without {' and '.join(missing)}",
            where=where,
            expected="a ceiling beside each grant (E7)",
            fix=f"write {', '.join(f'{key}: …' for key in missing)} in resources.gpu, or take devices away",
        )
    defaults = {"utilization_seconds": UTILIZATION_SECONDS}
    numbers = {key: getattr(policy, key) or defaults.get(key, 0) for key in GPU_CEILINGS}
    extra = [str(number) for number in child.devices or () if number not in granted]
    if extra:
        raise _wider_gpu("devices", ", ".join(extra), ", ".join(map(str, granted)) or "none", child_where)
    for key in GPU_CEILINGS:
        said = getattr(child, key)
        if said is None:
            continue
        if said > numbers[key] or not granted:
            raise _wider_gpu(key, str(said), f"at most {numbers[key]}" if granted else "no GPU at all", child_where)
        numbers[key] = said
    devices = granted if child.devices is None else tuple(dict.fromkeys(child.devices))
    return Gpu(devices, **numbers) if devices else Gpu()


def _wider_gpu(key: str, said: str, allowed: str, where: str) -> OperatorError:
    return OperatorError(
        f"resources.gpu.{key}: {said} widens what policy grants",
        where=where,
        expected=allowed,
        fix=f"narrow it, or have the policy's owner change resources.gpu.{key}",
    )


def tighter(first: LimitsText, second: LimitsText) -> LimitsText:
    """The tighter of two on each key: how several requirements' ceilings make one layer."""
    out: dict[str, str | int] = {}
    for rule in RULES:
        said = [v for v in (getattr(first, rule.key), getattr(second, rule.key)) if v is not None]
        try:
            if said:
                out[rule.key] = min(said, key=rule.parse)
        except ValueError as error:
            raise OperatorError(f"{rule.key}: {error}", expected=f"such as {rule.written(rule.default)}") from None
    return msgspec.convert(out, LimitsText)


def _parsed(layer: Layer, key: str, said: str | int) -> int:
    rule = next(r for r in RULES if r.key == key)
    try:
        return rule.parse(said)
    except ValueError as error:
        raise OperatorError(
            f"{key}: {error}", where=layer.where(key), expected=f"such as {rule.written(rule.default)}"
        ) from None
