"""The samplers and schedules by the names people know them by: A1111's labels, API aliases, ComfyUI's spellings."""

from __future__ import annotations

from dataclasses import dataclass

CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
ANCESTRAL = ("eta", "s_noise")


@dataclass(frozen=True)
class Sampler:
    """One sampler: what it is called, and what a surface or a plan must know before running it.

    `id` is the key of `bottega.diffusion.samplers.SAMPLERS`; `schedule` is what "Automatic" means for it; `options`
    are the keywords it understands.
    """

    name: str
    id: str
    aliases: tuple[str, ...] = ()
    schedule: str = "Uniform"
    options: tuple[str, ...] = ()
    uses_ensd: bool = False  # draws step noise from the image's generator, so ENSD changes the picture
    second_order: bool = False  # A1111 counts two model calls per step when it times prompt edits
    discard_penultimate: bool = False  # drops the sigma before the last, computed for one step more
    brownian: bool = False  # step noise comes from a Brownian tree instead of the image's generator
    timesteps: bool = False  # walks the trained timesteps in the variance-preserving scaling; takes no schedule
    spans: bool = False  # uses the ends of the noise range and places its own steps between them
    adaptive: bool = False  # decides by itself how many steps it takes
    cfg_pp: bool = False  # needs the unconditional prediction beside the guided one


@dataclass(frozen=True)
class Schedule:
    """One noise schedule; `rho` is its default exponent where it has one."""

    name: str
    id: str
    aliases: tuple[str, ...] = ()
    rho: float | None = None


SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",), "Karras"),
    Sampler(
        "DPM++ SDE",
        "dpmpp_sde",
        ("k_dpmpp_sde", "dpmpp_sde_gpu"),
        "Karras",
        ANCESTRAL,
        second_order=True,
        brownian=True,
    ),
    Sampler(
        "DPM++ 2M SDE",
        "dpmpp_2m_sde",
        ("k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        "Exponential",
        ANCESTRAL,
        brownian=True,
    ),
    Sampler(
        "DPM++ 2M SDE Heun",
        "dpmpp_2m_sde_heun",
        ("k_dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"),
        "Exponential",
        ANCESTRAL,
        brownian=True,
    ),
    Sampler(
        "DPM++ 2S a",
        "dpmpp_2s_ancestral",
        ("k_dpmpp_2s_a", "k_dpmpp_2s_ancestral", "dpm++ 2s ancestral"),
        "Karras",
        ANCESTRAL,
        uses_ensd=True,
        second_order=True,
    ),
    Sampler(
        "DPM++ 3M SDE",
        "dpmpp_3m_sde",
        ("k_dpmpp_3m_sde", "dpmpp_3m_sde_gpu"),
        "Exponential",
        ANCESTRAL,
        discard_penultimate=True,
        brownian=True,
    ),
    Sampler(
        "Euler a",
        "euler_ancestral",
        ("k_euler_a", "k_euler_ancestral", "euler ancestral"),
        options=ANCESTRAL,
        uses_ensd=True,
    ),
    Sampler("Euler", "euler", ("k_euler",), options=CHURN),
    Sampler("LMS", "lms", ("k_lms",), options=("order",)),
    Sampler("Heun", "heun", ("k_heun",), options=CHURN, second_order=True),
    Sampler("DPM2", "dpm_2", ("k_dpm_2",), "Karras", CHURN, second_order=True, discard_penultimate=True),
    Sampler(
        "DPM2 a",
        "dpm_2_ancestral",
        ("k_dpm_2_a", "k_dpm_2_ancestral", "dpm2 ancestral"),
        "Karras",
        ANCESTRAL,
        uses_ensd=True,
        second_order=True,
        discard_penultimate=True,
    ),
    Sampler("DPM fast", "dpm_fast", ("k_dpm_fast",), options=ANCESTRAL, uses_ensd=True, spans=True),
    Sampler(
        "DPM adaptive",
        "dpm_adaptive",
        ("k_dpm_ad", "k_dpm_adaptive"),
        options=(*ANCESTRAL, "order", "rtol", "atol"),
        uses_ensd=True,
        spans=True,
        adaptive=True,
    ),
    Sampler("Restart", "restart", (), "Karras", ("s_noise",), second_order=True),
    Sampler("HeunPP2", "heunpp2", (), options=CHURN),
    Sampler("IPNDM", "ipndm", ()),
    Sampler("IPNDM_V", "ipndm_v", ()),
    Sampler("DEIS", "deis", (), options=("order",)),
    Sampler("DDIM", "ddim", (), options=("eta",), timesteps=True),
    Sampler("DDIM CFG++", "ddim_cfgpp", (), options=("eta",), timesteps=True, cfg_pp=True),
    Sampler("PLMS", "plms", (), timesteps=True),
    Sampler("UniPC", "unipc", ("uni_pc",), options=("order", "variant"), timesteps=True),
    Sampler("LCM", "lcm", ("k_lcm",)),
)

SCHEDULES: tuple[Schedule, ...] = (
    Schedule("Automatic", "automatic"),
    Schedule("Uniform", "uniform"),
    Schedule("Karras", "karras", ("ka",), rho=7.0),
    Schedule("Exponential", "exponential"),
    Schedule("Polyexponential", "polyexponential", rho=1.0),
    Schedule("SGM Uniform", "sgm_uniform", ("SGMUniform",)),
    Schedule("KL Optimal", "kl_optimal"),
    Schedule("Align Your Steps", "align_your_steps", ("AYS",)),
    Schedule("Simple", "simple"),
    Schedule("Normal", "normal"),
    Schedule("DDIM", "ddim", ("ddim_uniform",)),
    Schedule("Beta", "beta"),
    Schedule("Turbo", "turbo"),
)


def find_sampler(name: str) -> Sampler | None:
    """The sampler of that label, id or alias, in any case; None for a stranger."""
    return _BY_SAMPLER.get(_fold(name))


def find_schedule(name: str) -> Schedule | None:
    """The schedule of that label, id or alias, in any case; None for a stranger."""
    return _BY_SCHEDULE.get(_fold(name))


def split_old_name(name: str) -> tuple[str, str] | None:
    """Takes a name with the schedule inside it apart, as A1111 up to 1.8 and Civitai write them.

    "DPM++ 2M Karras" -> ("DPM++ 2M", "Automatic"), because Karras is what Automatic means there;
    "Euler a Karras" -> ("Euler a", "Karras"). A name without a schedule gets "Automatic"; a stranger gets None.
    """
    whole = find_sampler(name)
    if whole:
        return whole.name, "Automatic"
    folded = _fold(name)
    for ending, schedule in _BY_ENDING:
        if not folded.endswith(" " + ending):
            continue
        sampler = find_sampler(folded[: -len(ending) - 1])
        if sampler:
            return sampler.name, "Automatic" if sampler.schedule == schedule.name else schedule.name
    return None


def from_comfy(sampler: str, scheduler: str) -> tuple[str, str] | None:
    """Our names for the pair that a ComfyUI KSampler node holds; None where we have no such sampler or schedule.

    ComfyUI's `ddim` is Euler on a schedule, not DDIM; its `beta` places timesteps where A1111's places sigmas, so
    the same name is a near but not an equal picture.
    """
    found = find_sampler("euler" if sampler == "ddim" else sampler)
    schedule = find_schedule(scheduler)
    if not found or not schedule:
        return None
    return found.name, "Automatic" if found.schedule == schedule.name else schedule.name


def _fold(name: str) -> str:
    """One spelling for `DPM++_2M-Karras`, `dpm++ 2m  karras` and so on."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


_BY_SAMPLER = {_fold(key): sampler for sampler in SAMPLERS for key in (sampler.name, sampler.id, *sampler.aliases)}
_BY_SCHEDULE = {_fold(key): curve for curve in SCHEDULES for key in (curve.name, curve.id, *curve.aliases)}
# Longest first, so that "SGM Uniform" is not read as "Uniform" after a sampler called "... SGM".
_BY_ENDING = sorted(_BY_SCHEDULE.items(), key=lambda item: -len(item[0]))
