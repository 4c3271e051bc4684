"""A strategy is written as the arguments that make it, and read back from literals alone."""

import dataclasses
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import memory, neurons
from snnjax.memory import Strategy, notation, parse_strategy

pytestmark = pytest.mark.fast

counts = st.integers(1, 10**6)
reversals = st.builds(lambda n: memory.reversal(refresh=n), st.none() | counts)
approximate = (
    st.sampled_from([memory.sltt(), memory.ottt(), memory.eprop()])
    | st.builds(lambda n: memory.sltt(steps=n), counts)
    | st.builds(lambda n, m: memory.skip(max(n, m), min(n, m)), counts, counts)
    | st.builds(lambda n: memory.truncated(n, inner=memory.recompute(1)), counts)
    | st.builds(memory.truncated, counts)
)
leaves = st.sampled_from([memory.store, memory.sequence]) | reversals
names = st.lists(st.sampled_from(["spikes", "currents"]) | st.text(max_size=5), max_size=3)
recomputes = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda every, inner, keep: memory.recompute(every, inner=inner, keep=tuple(keep)),
        counts | st.just("sqrt"), inner, names,
    ),
    max_leaves=4,
)  # fmt: skip
strategies = st.builds(
    Strategy,
    time=st.none() | recomputes | approximate,
    depth=st.none() | recomputes,
    pack=st.booleans() | st.sampled_from(["spikes", "bfloat16", "int8"]),
)


@settings(max_examples=200, deadline=None)
@given(strategies)
def test_a_written_strategy_is_read_back(strategy):
    assert parse_strategy(str(strategy)) == strategy
    assert hash(parse_strategy(str(strategy))) == hash(strategy)


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("", Strategy()),
        (" as written ", Strategy()),
        ("time=None", Strategy()),
        ("pack=True", Strategy(pack=True)),
        ("pack=spikes", Strategy(pack=True)),
        ("pack=int8", Strategy(pack="int8")),
        ("time=store,depth='reverse'", None),
        ("depth=reverse", Strategy(depth=memory.reversal())),
        ("depth=reverse(refresh=3)", Strategy(depth=memory.reversal(refresh=3))),
        ("time=recompute(sqrt)", Strategy(time=memory.recompute("sqrt"))),
        ("time=sltt()", Strategy(time=memory.sltt())),
        ("time=sltt(steps=2)", Strategy(time=memory.sltt(steps=2))),
        ("time=truncated(1)", Strategy(time=memory.sltt())),
        ("time=skip(8, steps=4)", Strategy(time=memory.skip(8, 4))),
        ("time=recompute(every=8)", Strategy(time=memory.recompute(8))),
        (
            "time=recompute(8, inner=sequence)",
            Strategy(time=memory.recompute(8, inner=memory.sequence)),
        ),
        (
            "depth=recompute(8, inner=recompute(1), keep=(spikes, 'currents'))",
            Strategy(
                depth=memory.recompute(8, inner=memory.recompute(1), keep=("spikes", "currents"))
            ),
        ),
    ],
)
def test_the_notation_of_people_is_read(text, strategy):
    if strategy is None:  # a scan is a word, not a text
        with pytest.raises(ValueError, match="'reverse' is no scan"):
            parse_strategy(text)
    else:
        assert parse_strategy(text) == strategy


BAD = {
    "a part that is not one": "width=recompute(1)",
    "a part without a name": "recompute(1)",
    "a part given twice": "pack=True, pack=False",
    "no scan of ours": "depth=half",
    "another call": "depth=revert(1)",
    "a call of a word": "time=store()",
    "no number": "time=recompute",
    "no window": "time=truncated",
    "no steps": "time=skip(4)",
    "more than all steps": "time=skip(4, 5)",
    "a draw of none": "time=sltt(0)",
    "a rule with a number": "time=ottt(2)",
    "a cut over depth": "depth=sltt",
    "nothing to every": "time=recompute()",
    "zero": "time=recompute(0)",
    "minus": "time=recompute(-2)",
    "a broken number": "time=recompute(2.5)",
    "a truth for a number": "time=recompute(True)",
    "another word": "time=recompute(root)",
    "an option that is none": "time=recompute(2, width=1)",
    "an inner number": "time=recompute(8, inner=2)",
    "an inner word": "time=recompute(8, inner=int8)",
    "a name for a tuple of names": "time=recompute(1, keep=currents)",
    "numbers for names": "time=recompute(1, keep=(1, 2))",
    "a refresh by position": "depth=reverse(3)",
    "a broken refresh": "depth=reverse(refresh=2.5)",
    "a refresh that is a word": "depth=reverse(refresh=sqrt)",
    "no refresh at all": "depth=reverse(refresh=0)",
    "a number for a scan": "time=3",
    "two scans": "depth=(store, reverse)",
    "a storage that is none": "pack=float8",
    "a number for a storage": "pack=1",
    "nothing for a storage": "pack=None",
    "unpacked options": "**{}",
    "unpacked arguments": "time=recompute(*sqrt)",
    "not closed": "time=recompute(1",
    "closed too early": "time=store), (",
    "a comment": "time=store) # and more",
    "an attribute": "time=memory.store",
    "a sum": "time=recompute(1 + 1)",
    "a null": "time=store\0",
    "no python": "time: store",
    "too deep": "time=" + "-" * 50_000 + "1",
    "as written and more": "as written, pack=True",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_unreadable_text_is_quoted_beside_an_example(text):
    with pytest.raises(ValueError) as refused:
        parse_strategy(text)
    said = str(refused.value)
    assert f"cannot read the strategy {text!r}" in said
    example = said.split("write it as '")[1].split("'")[0]
    assert parse_strategy(example) != Strategy()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="timedpthack=recomu(),1s' \"#*[]{}:\n\\.", max_size=30) | st.text())
def test_any_text_is_a_strategy_or_refused(text):
    try:
        strategy = parse_strategy(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert parse_strategy(str(strategy)) == strategy


@pytest.mark.parametrize(
    "template",
    [
        "{}", "time={}", "pack={}", "time=recompute({})", "time=recompute(1, inner={})",
        "time=recompute(1, keep=({},))", "depth=reverse(refresh={})", "**{}", "time=store) or ({}",
        "time=[{} for _ in (1,)]", "time=(lambda: {})()", "time=recompute(1) if {} else store",
        'time=f"{{{}}}"', "time=(x := {})",
    ],
)  # fmt: skip
def test_nothing_in_it_is_executed(template, tmp_path):
    touched = tmp_path / "touched"
    with pytest.raises(ValueError, match="cannot read the strategy"):
        parse_strategy(template.format(f"open({str(touched)!r}, 'w')"))
    assert not touched.exists()


@dataclasses.dataclass(frozen=True)
class Keep:
    """A scan of one's own, as a module would hold it."""

    every: int = 4
    inner: object = memory.store

    def __call__(self, step, params, state, xs):
        return memory.recompute(self.every, inner=self.inner)(step, params, state, xs)


def keep(every, *, names=()):
    """A maker of scans that are not compared by their options."""
    return lambda step, params, state, xs: memory.recompute(every, keep=names)(
        step, params, state, xs
    )


def plain(step, params, state, xs):
    return memory.store(step, params, state, xs)


@pytest.fixture
def mine(monkeypatch):
    """The names of register_scan, forgotten after the test."""
    monkeypatch.setattr(notation, "_REGISTERED", {})
    memory.register_scan("mine", plain)
    memory.register_scan("kept", Keep)
    memory.register_scan("keep4", Keep(4))


HERE = __name__
OWN = {
    "a function": (f"{HERE}:plain", plain),
    "a class": (f"{HERE}:Keep", Keep()),
    "a made one": (f"{HERE}:Keep(7)", Keep(7)),
    "by keyword": (f"{HERE}:Keep(every=7, inner=recompute(2))", Keep(7, memory.recompute(2))),
    "one inside another": (f"{HERE}:Keep(2, {HERE}:plain)", Keep(2, plain)),
    "inside of ours": (f"recompute(9, inner={HERE}:plain)", memory.recompute(9, inner=plain)),
    "registered": ("mine", plain),
    "a registered class": ("kept", Keep()),
    "made by a registered class": ("kept(7)", Keep(7)),
    "a registered value": ("keep4", Keep(4)),
    "ours, by its module": ("snnjax.memory:recompute(4)", memory.recompute(4)),
}


@pytest.mark.parametrize("place", ["time", "depth"])
@pytest.mark.parametrize(("text", "scan"), OWN.values(), ids=OWN)
def test_a_scan_of_ones_own_is_read_and_written(text, scan, place, mine):
    strategy = parse_strategy(f"{place}={text}, pack=True")
    assert strategy == Strategy(**{place: scan, "pack": True})
    assert parse_strategy(str(strategy)) == strategy
    assert parse_strategy(str(Strategy(**{place: scan}))) == Strategy(**{place: scan})


def test_one_text_is_one_scan_even_of_a_maker_without_equality():
    text = f"time={HERE}:keep(4, names=(spikes, 'a:b'))"
    strategy = parse_strategy(text)
    assert parse_strategy(text) == strategy == parse_strategy(str(strategy))
    assert parse_strategy(f"time={HERE}:keep(5)") != strategy
    assert str(strategy) == f"time={HERE}:keep(4, names=(spikes, 'a:b'))"


def test_an_inverse_is_written_with_its_options():
    strategy = Strategy(depth=memory.reverse(neurons.lif_model(decay=0.5).require_inverse()))
    assert parse_strategy(str(strategy)) == strategy


def test_a_scan_that_no_other_process_can_import_is_shown_by_its_name():
    """A local function, a notebook's, one in the file of an experiment."""

    def inner(step, params, state, xs):
        return memory.store(step, params, state, xs)

    experiment = types.FunctionType(plain.__code__, globals() | {"__name__": "snnjax_experiment_x"})
    for scan, name in ((inner, "inner"), (experiment, "plain")):
        assert str(Strategy(time=scan)) == f"time={name}"
        with pytest.raises(ValueError, match="is no scan"):
            parse_strategy(f"time={name}")


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ("no_such_module:keep", "importing no_such_module failed.*PYTHONPATH"),
        (f"{HERE}:nothing", f"{HERE} has no nothing"),
        (f"{HERE}:Keep(1, 2, 3)", "Keep\\(1, 2, 3\\) failed, TypeError"),
        (f"{HERE}:Keep(open('x'))", "is no scan"),
        (f"{HERE}:HERE", "is no scan"),
        (f"{HERE}:HERE()", "HERE makes no scan"),
        (f"{HERE}:keep(1)(2)", "is no name: write module:name"),
        (f"{HERE}:keep(*mine)", "is neither a scan nor a number"),
        ("mine", "'mine' is no scan"),
    ],
)
def test_a_scan_of_ones_own_that_fails_is_named(scan, message):
    with pytest.raises(ValueError, match=f"cannot read the strategy.*{message}"):
        parse_strategy(f"time={scan}")


@pytest.mark.parametrize(
    ("name", "scan", "message"),
    [("store", plain, "another|other than"), ("a b", plain, "other than"), ("x", 3, "no scan")],
)
def test_a_name_for_a_scan_is_a_free_word(name, scan, message, mine):
    with pytest.raises(ValueError, match=message):
        memory.register_scan(name, scan)


def test_a_class_is_no_scan():
    with pytest.raises(ValueError, match=r"Keep is a class, no scan: write Keep\(\)"):
        Strategy(time=Keep)


def test_equal_arguments_make_equal_strategies():
    make = lambda: Strategy(memory.recompute(2), memory.reversal(), "int8")  # noqa: E731
    assert make() == make() and hash(make()) == hash(make())
    assert make() != Strategy(memory.recompute(3), memory.reversal(), "int8")


@pytest.mark.parametrize("options", [{"time": 3}, {"depth": "store"}, {"pack": "f8"}, {"pack": 1}])
def test_a_strategy_that_makes_no_sense_is_refused_when_it_is_made(options):
    with pytest.raises(ValueError, match="no scan|pack is"):
        Strategy(**options)
