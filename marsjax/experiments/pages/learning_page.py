"""The page of learning: an agent trained small or read from a folder, its curves, the comparison with rules, files."""

from typing import Any

from marsjax.experiments.pages import learning_run, pieces
from marsjax.experiments.pages.learning_run import (
    EXECUTION,
    MADE,
    MAKING,
    NOISE,
    REAL,
    LearningAsk,
    LearningResult,
)
from marsjax.experiments.pages.workshop import Workshop
from marsjax.studies import agent_training, places
from marsjax.studies.agent_comparison import ComparisonSpec
from marsjax.studies.agent_markets import EpisodeSpec, MarketMakingSpec
from marsjax.studies.agent_training import AgentTraining
from marsjax.studies.maker_comparison import MakerComparisonSpec

_KEY = "learning"
_TRAIN, _LOAD = "trained now", "read from a folder"
_LOOKS = 20
_PPO = {"envs": 64, "epochs": 4, "minibatches": 4, "anneal": True, "discount": 1.0, "trace": 0.95, "clip": 0.2,
        "entropy": 0.01, "width": 32, "layers": 2, "memory": 0}
"""What the page does not ask for."""


def page(st: Any, shop: Workshop) -> None:
    """Draws the page; what was run stays in the session."""
    st.title("Learning")
    st.markdown("A small agent learns to execute an order, or to make a market, by reinforcement (PPO); then it and "
                "rules trade in the same episodes, which it was not trained on.")
    pieces.framed(st, shop, _KEY, lambda: _parameters(st, shop), pieces.Run(learning_run.run, _show))


def _parameters(st: Any, shop: Workshop) -> Any:
    """The choices; returns what makes the request of them all, which may raise InputError."""
    device = str(st.selectbox("Device", list(shop.devices), key=f"{_KEY}_device"))
    task = st.selectbox("Task", [EXECUTION, MAKING], key=f"{_KEY}_task",
                        format_func=lambda name: name.replace("_", " "))
    background = st.selectbox("Market", [NOISE, MADE, *([REAL] if shop.settings.feed else [])], key=f"{_KEY}_market",
                              help="Noise agents answer to the last price alone; a replay answers to nothing. In the "
                                   "market of an order model `marsjax train_agent` trains")
    day = ""
    if background != NOISE:
        names = list(places.MADE) if background == MADE else list(shop.days())
        day = str(st.selectbox("Day", names, key=f"{_KEY}_day_{background == REAL}"))
    source = st.selectbox("Agent", [_TRAIN, _LOAD], key=f"{_KEY}_agent")
    left, right = st.columns(2)
    steps = left.number_input("Steps of an episode", value=16, step=4, key=f"{_KEY}_steps")
    step_s = right.number_input("Seconds of a step", value=2.0, step=1.0, key=f"{_KEY}_step_s")
    lot = left.number_input("Lot", value=100, step=100, key=f"{_KEY}_lot", help="Shares that actions are multiples of")
    if task == EXECUTION:
        size = right.number_input("Shares", value=1600, step=100, key=f"{_KEY}_target", help="To be bought or sold")
    else:
        size = right.number_input("Most lots", value=10, step=1, key=f"{_KEY}_most_lots",
                                  help="Largest inventory, long or short")
    episodes = left.number_input("Episodes", value=256, step=64, key=f"{_KEY}_episodes", help="Of the comparison")
    seed = right.number_input("Seed", value=0, step=1, key=f"{_KEY}_seed", help="The same seed gives the same agents")
    training = _training(st) if source == _TRAIN else None
    folder = "" if source == _TRAIN else st.text_input(
        "Agent's folder", "", key=f"{_KEY}_folder",
        help="As runs/train_agent_execution/agent, on the machine of the dashboard")

    def make() -> LearningAsk:
        times: dict[str, Any] = {"steps": int(steps), "step_s": float(step_s), "lot": int(lot), "starts": 64,
                                 "held_starts": 64}
        is_making = task == MAKING
        episode = (MarketMakingSpec(most_lots=int(size), **times) if is_making else
                   EpisodeSpec(target=int(size), **times))
        against = (MakerComparisonSpec(int(episodes)) if is_making else
                   ComparisonSpec(int(episodes), rules=("twap", "immediate")))
        how = _how(training, episode.steps, int(seed)) if training else None
        return LearningAsk(device, background, day, episode, against, how, folder.strip())

    return make


def _training(st: Any) -> tuple[int, int, float]:
    """Steps, agents and rate of a training."""
    left, right = st.columns(2)
    steps = left.number_input("Steps of the training", value=131_072, step=65_536, key=f"{_KEY}_train_steps",
                              help="Of all 64 environments of an agent together; a good agent needs millions")
    agents = right.number_input("Agents", value=2, step=1, key=f"{_KEY}_seeds",
                                help="Trained side by side, which differ in their seed alone")
    rate = left.number_input("Learning rate", value=1e-3, step=1e-4, format="%.5f", key=f"{_KEY}_rate",
                             help="Of Adam, at first")
    return int(steps), int(agents), float(rate)


def _how(training: tuple[int, int, float], length: int, seed: int) -> AgentTraining:
    steps, agents, rate = training
    ppo = agent_training.ppo_spec(_PPO | {"train_steps": steps, "length": length, "rate": rate})
    return AgentTraining(ppo, agents, seed, _LOOKS)


def _show(st: Any, result: LearningResult) -> None:
    (st.warning if result.notes else st.success)(result.summary)
    pieces.notes(st, result.notes)
    st.subheader("Comparison", divider="gray")
    st.image(result.pictures["comparison"], width="stretch")
    st.dataframe(result.table, hide_index=True)
    st.caption("Means with 95% intervals over agents and starts, in brackets; more is better. Against the start: the "
               "mid at the start of an episode; against others: the mean price of what others traded in it.")
    st.subheader("Training", divider="gray")
    if "curves" in result.pictures:
        st.image(result.pictures["curves"], width="stretch")
    else:
        st.info("No curves lie beside the agent's folder.")
    st.caption("What is learnt is worth something in this market alone: noise agents do not mind who waits in their "
               "book, and a replay does not answer.")
    pieces.downloads(st, result.files, _KEY)
