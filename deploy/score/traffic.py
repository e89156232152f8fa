"""Generated traffic: clean clicks and six attacks, six hours, sorted by time, from a seed.

Clicks are events with a user and an address; recent activity is counted over the merged stream, as a
node counts it, so an attack changes what clean clicks beside it look like. The numbers are plausible
and invented: a model trained on them shows the way a model takes, not how invalid traffic looks.
"""

import collections

import numpy as np

from features import NAMES

HOURS = 6
NAN = float("nan")
BROWSER, OTHER, ABSENT, ROBOT = 1.0, 2.0, 0.0, 3.0


def _click(r, **given):
    """One clean click; what an attack does otherwise stands in `given`."""
    phone = r.random() < 0.6
    signed = r.random() < 0.9
    positioned = r.random() < 0.3
    pointed = r.random() < 0.7
    click = {
        "at": r.uniform(0, HOURS * 3600),
        "user": int(r.integers(1, 6000)),
        "address": int(r.integers(1, 5000)),
        "device": 2.0 if phone else float(r.choice([1, 3, 4])),
        "os": float(r.choice([5, 6])) if phone else float(r.choice([1, 2, 3, 4])),
        "country_known": float(r.random() < 0.97),
        "latitude": round(r.normal(48, 6), 2) if positioned else NAN,
        "longitude": round(r.normal(10, 9), 2) if positioned else NAN,
        "price": round(float(r.gamma(2.0, 0.2)), 2),
        "ordinal": float(r.choice([0, 1, 2], p=[0.96, 0.03, 0.01])),
        "click_age_s": round(float(r.exponential(0.6)), 1),
        "time_to_click_s": round(float(r.lognormal(1.9, 1.1)), 1) if signed else NAN,
        "signed": float(signed),
        "ipv6": float(r.random() < 0.4),
        "data_centre": float(r.random() < 0.01),
        "point_x": float(r.integers(0, 300)) if pointed else NAN,
        "point_y": float(r.integers(0, 250)) if pointed else NAN,
        "user_agent_length": float(r.integers(90, 180)) if r.random() < 0.98 else 0.0,
        "user_agent_class": BROWSER if r.random() < 0.9 else OTHER,
        "referrer_length": float(r.integers(20, 120)) if r.random() < 0.8 else 0.0,
    }
    if click["user_agent_length"] == 0.0:
        click["user_agent_class"] = ABSENT
    if r.random() < 0.15:
        click["user"] = 0
    click.update(given)
    return click


def _click_farm(r, count):
    """People with many phones behind few addresses: slow for a machine, busy for a person."""
    for _ in range(count):
        yield _click(
            r,
            user=int(r.integers(10_000, 10_120)),
            address=int(r.integers(10_000, 10_006)),
            device=2.0,
            os=5.0,
            time_to_click_s=round(float(r.lognormal(1.0, 0.3)), 1),
            signed=1.0,
        )


def _one_address(r, count):
    """A script at one address, new user keys as it likes, in bursts."""
    burst = 0.0
    for _ in range(count):
        if r.random() < 0.02:
            burst = r.uniform(0, HOURS * 3600)
        yield _click(r, at=burst + r.uniform(0, 90), user=int(r.integers(0, 1 << 30)), address=20_000)


def _rotating_addresses(r, count):
    """The same few users through thousands of addresses."""
    for _ in range(count):
        yield _click(
            r,
            user=int(r.integers(30_000, 30_040)),
            address=int(r.integers(30_000, 38_000)),
            time_to_click_s=round(float(r.lognormal(0.6, 0.6)), 1),
            signed=1.0,
        )


def _data_centre(r, count):
    """Browsers without a screen in rented machines."""
    for _ in range(count):
        yield _click(
            r,
            address=int(r.integers(40_000, 40_300)),
            data_centre=float(r.random() < 0.85),
            device=1.0,
            os=3.0,
            latitude=NAN,
            longitude=NAN,
            time_to_click_s=round(float(r.uniform(0.1, 2.0)), 1),
            signed=1.0,
        )


def _robots(r, count):
    """What follows every link: declared or not, always at the same point or at none."""
    for _ in range(count):
        declared = r.random() < 0.5
        yield _click(
            r,
            user=0,
            address=int(r.integers(50_000, 50_800)),
            user_agent_class=ROBOT if declared else OTHER,
            user_agent_length=float(r.integers(15, 70)),
            referrer_length=0.0,
            point_x=NAN if declared else 0.0,
            point_y=NAN if declared else 0.0,
            time_to_click_s=round(float(r.uniform(0.0, 0.6)), 1),
            signed=1.0,
        )


def _replayed(r, count):
    """Recorded clicks sent again: hours after their impression, with rising ordinals."""
    for _ in range(count):
        age = round(float(r.uniform(30, 500)), 1)
        yield _click(
            r,
            address=int(r.integers(60_000, 60_400)),
            ordinal=float(r.integers(1, 7)),
            click_age_s=age,
            time_to_click_s=round(float(r.uniform(600, 40_000)), 1),
            signed=1.0,
        )


ATTACKS = {
    "click farm": _click_farm,
    "one address": _one_address,
    "rotating addresses": _rotating_addresses,
    "data centre": _data_centre,
    "robots": _robots,
    "replayed": _replayed,
}


class _Window:
    """Who was seen how often, and with whom, in the last `seconds`."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.events = collections.deque()
        self.seen = collections.Counter()
        self.pairs = collections.Counter()
        self.partners = collections.Counter()

    def count(self, at, key, partner):
        while self.events and self.events[0][0] <= at - self.seconds:
            _, old, with_whom = self.events.popleft()
            self.seen[old] -= 1
            self.pairs[old, with_whom] -= 1
            self.partners[old] -= self.pairs[old, with_whom] == 0
        before = self.seen[key]
        self.events.append((at, key, partner))
        self.seen[key] += 1
        self.pairs[key, partner] += 1
        self.partners[key] += self.pairs[key, partner] == 1
        return float(before), float(self.partners[key])


def generate(seed, clean, attack):
    """`clean` clean clicks and `attack` of each attack: features, labels, names of the attacks."""
    r = np.random.default_rng(seed)
    clicks = [("clean", _click(r)) for _ in range(clean)]
    for name, make in ATTACKS.items():
        clicks += [(name, click) for click in make(r, attack)]
    clicks.sort(key=lambda named: named[1]["at"])
    user_minute, user_hour = _Window(60), _Window(3600)
    address_minute, address_hour = _Window(60), _Window(3600)
    for _, click in clicks:
        at, user, address = click["at"], click["user"], click["address"]
        click["hour_utc"] = float(int(at // 3600) + 9)
        click["user_known"] = float(user != 0)
        click["user_clicks_minute"] = click["user_clicks_hour"] = NAN
        if user:
            click["user_clicks_minute"], _ = user_minute.count(at, user, address)
            click["user_clicks_hour"], _ = user_hour.count(at, user, address)
        click["address_clicks_minute"], _ = address_minute.count(at, address, user)
        click["address_clicks_hour"], click["address_users_hour"] = address_hour.count(at, address, user)
    rows = np.array([[click[name] for name in NAMES] for _, click in clicks], dtype=np.float32)
    names = np.array([name for name, _ in clicks])
    return rows, (names != "clean").astype(np.int64), names
