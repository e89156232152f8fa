//! What the generator sends, kind by kind, and what each kind must become: the table that lets
//! somebody else close the books.

use weir_common::reason::{Outcome, Reason};

/// How far a datagram or frame of a kind gets, and therefore who counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A sound click from the SDK: resent until acknowledged.
    Tracked,
    /// A datagram that reaches a worker, sent once by hand.
    Worker,
    /// A datagram whose wire header is unsound: the XDP program drops and counts it; without XDP
    /// a worker counts it as one malformed click of the same reason.
    Header,
    /// A frame that only the XDP program counts; without XDP the kernel drops it unseen.
    Frame,
    /// A frame that is none of ours: the XDP program passes and counts it, the kernel deals with it.
    Passed,
    /// A sound datagram in an unusual frame: steered or local for XDP, one click for the worker.
    Wrapped,
}

macro_rules! kinds {
    ($( $variant:ident $name:literal $stage:ident $outcome:ident $reason:ident )*) => {
        /// A kind of traffic.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is documented by its row: stage, outcome, reason")]
        pub enum Kind { $( $variant, )* }

        impl Kind {
            /// All kinds in the order of their numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// How far it gets.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $( Self::$variant => Stage::$stage, )* }
            }

            /// What becomes of its clicks the first time, once a worker sees them.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self { $( Self::$variant => Outcome::$outcome, )* }
            }

            /// The reason beside the outcome, or the frame's reason.
            #[must_use]
            pub const fn reason(self) -> Reason {
                match self { $( Self::$variant => Reason::$reason, )* }
            }
        }
    };
}

kinds! {
    Fresh "fresh" Tracked Accepted None
    Foreign "foreign" Tracked Accepted None
    Duplicate "duplicate" Tracked Duplicate None
    Repeat "repeat" Tracked Repeat None
    Late "late" Tracked Late None
    WrongClock "wrong_clock" Tracked Accepted None
    TestTraffic "test_traffic" Tracked Filtered TestTraffic
    Prefetch "prefetch" Tracked Filtered Prefetch
    BadTag "bad_tag" Tracked Refused BadTag
    UnknownKey "unknown_key" Tracked Refused UnknownKey
    Expired "expired" Tracked Refused Expired
    NotYetIssued "not_yet_issued" Tracked Refused NotYetIssued
    OrdinalLimit "ordinal_limit" Tracked Refused OrdinalLimit
    ForeignRefused "foreign_refused" Tracked Refused UnsignedNotAllowed

    ClickCut "click_cut" Worker Malformed ClickCut
    ReservedBits "reserved_bits" Worker Malformed ReservedBits
    BadExtension "bad_extension" Worker Malformed BadExtension
    ForeignTag "foreign_tag" Worker Malformed ForeignTag
    BadCountry "bad_country" Worker Malformed BadCountry
    BadCoordinates "bad_coordinates" Worker Malformed BadCoordinates
    BadPrice "bad_price" Worker Malformed BadPrice

    HeaderShort "header_short" Header Malformed HeaderShort
    BadMagic "bad_magic" Header Malformed BadMagic
    BadVersion "bad_version" Header Malformed BadVersion
    BadFlags "bad_flags" Header Malformed BadFlags
    BadCount "bad_count" Header Malformed BadCount
    BadShard "bad_shard" Header Malformed BadShard
    BadLength "bad_length" Header Malformed BadLength

    FrameTruncated "frame_truncated" Frame Malformed FrameTruncated
    IpHeaderLength "ip_header_length" Frame Malformed IpHeaderLength
    IpLength "ip_length" Frame Malformed IpLength
    Fragment "fragment" Frame Malformed Fragment
    UdpLength "udp_length" Frame Malformed UdpLength
    ExtensionChain "extension_chain" Frame Malformed ExtensionChain
    FragmentV6 "fragment_v6" Frame Malformed Fragment
    DeniedSource "denied_source" Frame Refused DeniedSource

    NotIp "not_ip" Passed Malformed NotIp
    NotUdp "not_udp" Passed Malformed NotUdp
    OtherPort "other_port" Passed Malformed OtherPort
    OtherAddress "other_address" Passed Malformed OtherAddress
    VlanTooDeep "vlan_too_deep" Passed Malformed VlanTooDeep

    Ipv4Options "ipv4_options" Wrapped Accepted None
    Vlan1 "vlan_1" Wrapped Accepted None
    Vlan2 "vlan_2" Wrapped Accepted None
    Vlan3 "vlan_3" Wrapped Accepted None
    Vlan4 "vlan_4" Wrapped Accepted None
    Ipv6Extensions "ipv6_extensions" Wrapped Accepted None
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether it can only be sent as a raw frame.
    #[must_use]
    pub const fn needs_packet_socket(self) -> bool {
        matches!(self.stage(), Stage::Frame | Stage::Passed | Stage::Wrapped)
    }

    /// Whether it exists only in IPv6.
    #[must_use]
    pub const fn needs_ipv6(self) -> bool {
        matches!(self, Self::ExtensionChain | Self::FragmentV6 | Self::Ipv6Extensions)
    }

    /// Whether the raw frame is built on IPv4.
    #[must_use]
    pub const fn needs_ipv4(self) -> bool {
        self.needs_packet_socket() && !self.needs_ipv6()
    }

    /// Whether the click, once taken, is stored: it has a row, and its resend is a `duplicate`.
    #[must_use]
    pub const fn is_stored(self) -> bool {
        matches!(
            self.outcome(),
            Outcome::Accepted | Outcome::Repeat | Outcome::Duplicate | Outcome::Late | Outcome::Filtered
        )
    }
}

/// Slots of a mix: weights are in thousandths of all planned sends.
pub const MIX_SLOTS: usize = 1000;

/// What to send, in thousandths; the rest is [`Kind::Fresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Every kind there is, mostly good traffic.
    Demo,
    /// Fresh signed clicks only.
    Clean,
    /// Half fresh, half transport retries.
    Duplicates,
    /// One fresh, 99 transport retries.
    Resends,
    /// Fresh signed clicks, nine of ten on one ad.
    HotAd,
}

/// [`Profile::Demo`], without its fresh part.
const DEMO: &[(Kind, u32)] = &[
    (Kind::Foreign, 100),
    (Kind::Duplicate, 80),
    (Kind::Repeat, 50),
    (Kind::Late, 25),
    (Kind::WrongClock, 20),
    (Kind::TestTraffic, 10),
    (Kind::Prefetch, 10),
    (Kind::BadTag, 10),
    (Kind::UnknownKey, 5),
    (Kind::Expired, 5),
    (Kind::NotYetIssued, 3),
    (Kind::OrdinalLimit, 3),
    (Kind::ClickCut, 1),
    (Kind::ReservedBits, 1),
    (Kind::BadExtension, 1),
    (Kind::ForeignTag, 1),
    (Kind::BadCountry, 1),
    (Kind::BadCoordinates, 1),
    (Kind::BadPrice, 1),
    (Kind::HeaderShort, 1),
    (Kind::BadMagic, 1),
    (Kind::BadVersion, 1),
    (Kind::BadFlags, 1),
    (Kind::BadCount, 1),
    (Kind::BadShard, 1),
    (Kind::BadLength, 1),
    (Kind::FrameTruncated, 1),
    (Kind::IpHeaderLength, 1),
    (Kind::IpLength, 1),
    (Kind::Fragment, 1),
    (Kind::UdpLength, 1),
    (Kind::ExtensionChain, 1),
    (Kind::FragmentV6, 1),
    (Kind::DeniedSource, 5),
    (Kind::NotIp, 1),
    (Kind::NotUdp, 1),
    (Kind::OtherPort, 1),
    (Kind::OtherAddress, 1),
    (Kind::VlanTooDeep, 1),
    (Kind::Ipv4Options, 1),
    (Kind::Vlan1, 1),
    (Kind::Vlan2, 1),
    (Kind::Vlan3, 1),
    (Kind::Vlan4, 1),
    (Kind::Ipv6Extensions, 1),
];

/// What a run is able to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Raw frames, on an interface.
    pub packet_socket: bool,
    /// An IPv4 target.
    pub ipv4: bool,
    /// An IPv6 target.
    pub ipv6: bool,
    /// A source that the node's XDP program denies.
    pub denied_source: bool,
    /// The node takes unsigned traffic; without it foreign clicks are refused.
    pub unsigned: bool,
}

impl Means {
    /// What to send for a kind of a profile: the kind itself, its counterpart on such a node, or
    /// nothing.
    fn allow(self, kind: Kind) -> Option<Kind> {
        let possible = (self.packet_socket || !kind.needs_packet_socket())
            && (self.ipv6 || !kind.needs_ipv6())
            && (self.ipv4 || !kind.needs_ipv4())
            && (self.denied_source || kind != Kind::DeniedSource);
        let counterpart = if kind == Kind::Foreign && !self.unsigned { Kind::ForeignRefused } else { kind };
        possible.then_some(counterpart)
    }
}

impl Profile {
    /// The share of clicks that the first ad has for itself; the rest follows Zipf's law.
    #[must_use]
    pub const fn hot_share(self) -> f64 {
        if matches!(self, Self::HotAd) { 0.9 } else { 0.0 }
    }

    /// The kinds in the order they are sent, one for each slot; the same for the same seed. Kinds
    /// that the means do not allow give their share to fresh clicks.
    #[must_use]
    pub fn mix(self, means: Means, seed: u64) -> Vec<Kind> {
        use rand::SeedableRng;
        use rand::seq::SliceRandom;
        let weights = match self {
            Self::Demo => DEMO,
            Self::Clean | Self::HotAd => &[],
            Self::Duplicates => &[(Kind::Duplicate, 500)],
            Self::Resends => &[(Kind::Duplicate, 990)],
        };
        let mut mix = Vec::with_capacity(MIX_SLOTS);
        for &(kind, share) in weights {
            if let Some(kind) = means.allow(kind) {
                mix.resize(mix.len() + share as usize, kind);
            }
        }
        mix.resize(MIX_SLOTS, Kind::Fresh);
        mix.shuffle(&mut rand::rngs::SmallRng::seed_from_u64(seed));
        mix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_MEANS: Means =
        Means { packet_socket: true, ipv4: true, ipv6: true, denied_source: true, unsigned: true };

    #[test]
    fn the_demo_sends_every_kind_and_mostly_fresh_clicks() {
        let mix = Profile::Demo.mix(ALL_MEANS, 1);
        assert_eq!(mix.len(), MIX_SLOTS);
        for kind in Kind::ALL.iter().filter(|&&kind| kind != Kind::ForeignRefused) {
            assert!(mix.contains(kind), "{kind:?} is missing");
        }
        let signed_only = Profile::Demo.mix(Means { unsigned: false, ..ALL_MEANS }, 1);
        let count = |mix: &[Kind], kind| mix.iter().filter(|&&other| other == kind).count();
        assert_eq!(count(&signed_only, Kind::ForeignRefused), count(&mix, Kind::Foreign));
        assert_eq!(count(&signed_only, Kind::Foreign), 0);
        assert!(mix.iter().filter(|&&kind| kind == Kind::Fresh).count() > MIX_SLOTS / 2);
    }

    #[test]
    fn without_an_interface_no_raw_frame_is_planned() {
        let mix = Profile::Demo.mix(Means { packet_socket: false, ..ALL_MEANS }, 1);
        assert!(!mix.iter().any(|kind| kind.needs_packet_socket()));
        assert_eq!(mix.len(), MIX_SLOTS);
    }

    #[test]
    fn a_reason_of_the_table_belongs_to_the_outcome_or_stage_beside_it() {
        use weir_common::reason::Class;
        for kind in Kind::ALL {
            let expected = match (kind.stage(), kind.outcome()) {
                (Stage::Passed, _) => Class::Passed,
                (_, Outcome::Malformed) => Class::Malformed,
                (_, Outcome::Refused) => Class::Refused,
                (_, Outcome::Filtered) => Class::Filtered,
                _ => Class::None,
            };
            assert_eq!(kind.reason().class(), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_kind_is_found_by_its_number() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
        }
    }
}
