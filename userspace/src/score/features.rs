//! What a model sees of a click: 32-bit floats with names, computed from the facts by a pure
//! function.
//!
//! What is not known is NaN, and a model says at each of its splits which way an unknown value
//! goes. The list has a version and an order; a model names the list it was trained on
//! ([`Model::load`](super::Model::load) refuses any other), so a feature that is added, moved or
//! computed otherwise is a new version.

use weir_common::time::UnixMs;
use weir_common::wire::{Click, click_flags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A version of the list of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeaturesVersion(pub u32);

/// Declares the features once: the struct, their names in its order, and their count.
macro_rules! features {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The features of one click, in the order a model reads them.
        #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
        #[repr(C)]
        pub struct Features {
            $($(#[$doc])* pub $name: f32,)*
        }

        impl Features {
            /// Their names, in order.
            pub const NAMES: [&str; Self::COUNT] = [$(stringify!($name)),*];
            /// How many there are.
            pub const COUNT: usize = [$(stringify!($name)),*].len();
        }
    };
}

features! {
    /// Device class, by its number in `docs/protocol.md`.
    device,
    /// Operating system, by its number in `docs/protocol.md`.
    os,
    /// 1 if the click names a country.
    country_known,
    /// Degrees; NaN without a position.
    latitude,
    /// Degrees; NaN without a position.
    longitude,
    /// The price of the click, in the account's currency unit.
    price,
    /// Which click on its impression, from 0.
    ordinal,
    /// Seconds from the click, by the sender's clock, to its reception: negative if that clock is
    /// ahead. At most a day to either side.
    click_age_s,
    /// Seconds from the issue of a signed impression to the click, to whole seconds of the issue.
    /// At most a day to either side; NaN for an unsigned impression.
    time_to_click_s,
    /// The hour of the day of reception, UTC.
    hour_utc,
    /// 1 if the impression is signed.
    signed,
    /// 1 if the address of the user's device is IPv6; NaN if it is not known.
    ipv6,
    /// 1 if that address is in a data centre; NaN if nobody knows.
    data_centre,
    /// 1 if the click names a user.
    user_known,
    /// Pixels from the left of the creative; NaN without a point.
    point_x,
    /// Pixels from the top of the creative; NaN without a point.
    point_y,
    /// Octets of the user agent.
    user_agent_length,
    /// 0 none, 1 a browser by its own word, 2 anything else, 3 a known robot.
    user_agent_class,
    /// Octets of the referrer.
    referrer_length,
    /// Clicks of this user in the minute before; NaN without a user.
    user_clicks_minute,
    /// Clicks of this user in the hour before; NaN without a user.
    user_clicks_hour,
    /// Clicks from this address in the minute before; NaN without an address.
    address_clicks_minute,
    /// Clicks from this address in the hour before; NaN without an address.
    address_clicks_hour,
    /// Different users at this address in the last hour, this one included; NaN without an address.
    address_users_hour,
}

// `Model::score` reads rows of this many floats; a mask keeps its look-ups inside them.
const _: () = assert!(Features::COUNT <= super::forest::ROW && size_of::<Features>() == Features::COUNT * 4);

/// Recent activity, as whoever counts it found it before this click. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Clicks of this user in the minute before.
    pub user_clicks_minute: Option<u32>,
    /// Clicks of this user in the hour before.
    pub user_clicks_hour: Option<u32>,
    /// Clicks from this address in the minute before.
    pub address_clicks_minute: Option<u32>,
    /// Clicks from this address in the hour before.
    pub address_clicks_hour: Option<u32>,
    /// Different users at this address in the last hour, this one included.
    pub address_users_hour: Option<u32>,
}

/// What is known of a click that admission let pass: its fields are sound, its signature holds.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The click.
    pub click: &'a Click,
    /// When this node received it.
    pub received_at: UnixMs,
    /// What the user's device says it is; empty when it says nothing.
    pub user_agent: &'a [u8],
    /// Whether a list knows this user agent or address as a robot's.
    pub is_robot: bool,
    /// Where the user came from; empty when the click does not say.
    pub referrer: &'a [u8],
    /// Whether the address of the user's device is IPv6; `None` without an address.
    pub is_ipv6: Option<bool>,
    /// Whether that address is in a data centre; `None` without an address or a list.
    pub is_data_centre: Option<bool>,
    /// Recent activity.
    pub activity: Activity,
}

/// Differences of clocks beyond a day tell a model nothing more, and no sum of it overflows.
const SECONDS_MAX: f32 = 86_400.0;
/// What a value that is not known is to a model.
const UNKNOWN: f32 = f32::NAN;

impl Features {
    /// The version of this list. It goes up when a feature is added, removed, moved or computed
    /// otherwise.
    pub const VERSION: FeaturesVersion = FeaturesVersion(1);

    /// The features of a click. Total: every click has them, and none is infinite.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let click = facts.click;
        let positioned = |degrees_e6: i32| {
            known_if(click.flags & click_flags::POSITION != 0, (f64::from(degrees_e6) / 1e6) as f32)
        };
        let pointed = |pixels: u16| known_if(click.flags & click_flags::POINT != 0, f32::from(pixels));
        let signed = !click.is_foreign();
        let issued_at = UnixMs(u64::from(click.impression.issued_at_s()) * 1000);
        let clicked_at = UnixMs(click.clicked_at_ms.get());
        let activity = facts.activity;
        Self {
            device: f32::from(click.device),
            os: f32::from(click.os),
            country_known: truth(click.country != [0, 0]),
            latitude: positioned(click.latitude_e6.get()),
            longitude: positioned(click.longitude_e6.get()),
            price: (click.price_micros.get() as f64 / 1e6) as f32,
            ordinal: f32::from(click.ordinal),
            click_age_s: seconds_between(clicked_at, facts.received_at),
            time_to_click_s: known_if(signed, seconds_between(issued_at, clicked_at)),
            hour_utc: (facts.received_at.0 / MS_PER_HOUR % 24) as f32,
            signed: truth(signed),
            ipv6: facts.is_ipv6.map_or(UNKNOWN, truth),
            data_centre: facts.is_data_centre.map_or(UNKNOWN, truth),
            user_known: truth(click.user_key.get() != 0),
            point_x: pointed(click.x.get()),
            point_y: pointed(click.y.get()),
            user_agent_length: facts.user_agent.len() as f32,
            user_agent_class: agent_class(facts.user_agent, facts.is_robot),
            referrer_length: facts.referrer.len() as f32,
            user_clicks_minute: count(activity.user_clicks_minute),
            user_clicks_hour: count(activity.user_clicks_hour),
            address_clicks_minute: count(activity.address_clicks_minute),
            address_clicks_hour: count(activity.address_clicks_hour),
            address_users_hour: count(activity.address_users_hour),
        }
    }

    /// Features from their values, in the order of [`Self::NAMES`].
    #[must_use]
    pub fn from_array(values: [f32; Self::COUNT]) -> Self {
        zerocopy::transmute!(values)
    }

    /// The features as a model reads them.
    #[inline]
    #[must_use]
    pub fn as_array(&self) -> &[f32; Self::COUNT] {
        zerocopy::transmute_ref!(self)
    }
}

const MS_PER_HOUR: u64 = 3_600_000;

const fn truth(is_so: bool) -> f32 {
    if is_so { 1.0 } else { 0.0 }
}

const fn known_if(is_known: bool, value: f32) -> f32 {
    if is_known { value } else { UNKNOWN }
}

fn count(seen: Option<u32>) -> f32 {
    seen.map_or(UNKNOWN, |seen| seen as f32)
}

/// From one moment to another; negative when the second is before the first.
fn seconds_between(from: UnixMs, to: UnixMs) -> f32 {
    let distance = (from.0.abs_diff(to.0) as f64 / 1e3) as f32;
    let signed = if to.0 < from.0 { -distance } else { distance };
    signed.clamp(-SECONDS_MAX, SECONDS_MAX)
}

/// Browsers have begun with these words since 1993 and 1996; what does not is an app or a program.
const BROWSERS: [&[u8]; 2] = [b"Mozilla/", b"Opera/"];

fn agent_class(user_agent: &[u8], is_robot: bool) -> f32 {
    if is_robot {
        3.0
    } else if user_agent.is_empty() {
        0.0
    } else if BROWSERS.iter().any(|word| user_agent.starts_with(word)) {
        1.0
    } else {
        2.0
    }
}

#[cfg(test)]
mod tests {
    use weir_common::id::{ImpressionId, Issuer, KeyId};

    use super::*;

    const NOON: UnixMs = UnixMs(1_795_348_800_000 + 500);

    fn signed_click() -> Click {
        let mut click = Click::zeroed();
        let issued_at_s = (NOON.0 / 1000) as u32 - 40;
        click.impression = ImpressionId::issued(Issuer(1), KeyId(1), issued_at_s, 7);
        click.clicked_at_ms = (NOON.0 - 1_500).into();
        click
    }

    fn facts(click: &Click) -> Facts<'_> {
        Facts {
            click,
            received_at: NOON,
            user_agent: b"",
            is_robot: false,
            referrer: b"",
            is_ipv6: None,
            is_data_centre: None,
            activity: Activity::default(),
        }
    }

    #[test]
    fn each_fact_is_the_feature_of_its_name() {
        let mut click = signed_click();
        click.device = 2;
        click.os = 6;
        click.country = *b"DE";
        click.latitude_e6 = 52_500_000.into();
        click.longitude_e6 = (-13_250_000).into();
        click.price_micros = 250_000.into();
        click.ordinal = 3;
        click.user_key = 9.into();
        click.x = 17.into();
        click.y = 40.into();
        click.flags = click_flags::POSITION | click_flags::POINT;
        let activity = Activity {
            user_clicks_minute: Some(1),
            user_clicks_hour: Some(2),
            address_clicks_minute: Some(3),
            address_clicks_hour: Some(4),
            address_users_hour: Some(5),
        };
        let facts = Facts {
            user_agent: b"Mozilla/5.0",
            referrer: b"https://a.example/",
            is_ipv6: Some(true),
            is_data_centre: Some(false),
            activity,
            ..facts(&click)
        };
        let expected = Features {
            device: 2.0,
            os: 6.0,
            country_known: 1.0,
            latitude: 52.5,
            longitude: -13.25,
            price: 0.25,
            ordinal: 3.0,
            click_age_s: 1.5,
            time_to_click_s: 39.0,
            hour_utc: 12.0,
            signed: 1.0,
            ipv6: 1.0,
            data_centre: 0.0,
            user_known: 1.0,
            point_x: 17.0,
            point_y: 40.0,
            user_agent_length: 11.0,
            user_agent_class: 1.0,
            referrer_length: 18.0,
            user_clicks_minute: 1.0,
            user_clicks_hour: 2.0,
            address_clicks_minute: 3.0,
            address_clicks_hour: 4.0,
            address_users_hour: 5.0,
        };
        assert_eq!(Features::of(&facts), expected);
    }

    #[test]
    fn what_is_not_known_is_nan_and_nothing_else_is() {
        let mut click = Click::zeroed();
        click.flags = click_flags::FOREIGN;
        let features = Features::of(&facts(&click));
        let unknown: Vec<&str> = Features::NAMES
            .into_iter()
            .zip(features.as_array())
            .filter_map(|(name, value)| value.is_nan().then_some(name))
            .collect();
        let expected = [
            "latitude",
            "longitude",
            "time_to_click_s",
            "ipv6",
            "data_centre",
            "point_x",
            "point_y",
            "user_clicks_minute",
            "user_clicks_hour",
            "address_clicks_minute",
            "address_clicks_hour",
            "address_users_hour",
        ];
        assert_eq!(unknown, expected);
    }

    #[test]
    fn no_clock_of_a_sender_makes_a_feature_infinite() {
        for (clicked_at_ms, age) in [(0, 86_400.0), (u64::MAX, -86_400.0), (NOON.0 + 250, -0.25)] {
            let mut click = signed_click();
            click.clicked_at_ms = clicked_at_ms.into();
            click.price_micros = u64::MAX.into();
            let features = Features::of(&facts(&click));
            assert_eq!(features.click_age_s, age);
            assert!(features.as_array().iter().all(|value| !value.is_infinite()), "{features:?}");
        }
    }

    #[test]
    fn user_agents_are_four_classes() {
        let class = |user_agent: &[u8], is_robot| agent_class(user_agent, is_robot);
        assert_eq!(class(b"", false), 0.0);
        assert_eq!(class(b"Mozilla/5.0 (X11)", false), 1.0);
        assert_eq!(class(b"Opera/9.80", false), 1.0);
        assert_eq!(class(b"curl/8", false), 2.0);
        assert_eq!(class(b"Mozilla/5.0 (compatible; a robot)", true), 3.0);
    }

    #[test]
    fn the_array_is_in_the_order_of_the_names() {
        let mut features = Features::from_array([0.0; Features::COUNT]);
        features.device = 1.0;
        features.address_users_hour = 2.0;
        assert_eq!(features.as_array()[0], 1.0);
        assert_eq!(features.as_array()[Features::COUNT - 1], 2.0);
        assert_eq!(Features::NAMES[0], "device");
        assert_eq!(Features::NAMES[Features::COUNT - 1], "address_users_hour");
    }
}
