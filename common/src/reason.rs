//! The one table of outcomes and reasons: number, name, class, cause, remedy.
//!
//! BPF counters are indexed by these numbers, metrics and the terminal view are labelled with
//! these names, and the documents and `weir explain` print these texts. A number is never used
//! for anything else, even after its reason is gone.

/// What became of one click. Exactly one for every click that reaches the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The first countable click on its impression.
    Accepted = 0,
    /// A further click on an impression already counted: gross, not billable.
    Repeat = 1,
    /// A transport retry of a click already here: not traffic.
    Duplicate = 2,
    /// Older than the allowed lateness: kept in raw, left to reconciliation.
    Late = 3,
    /// Known to be no valid traffic, for the reason beside it: gross, not billable.
    Filtered = 4,
    /// Not taken, for the reason beside it.
    Refused = 5,
    /// Not a click by the protocol, for the reason beside it.
    Malformed = 6,
}

/// Number of outcomes.
pub const OUTCOMES: usize = 7;

impl Outcome {
    /// All outcomes in the order of their numbers.
    pub const ALL: [Self; OUTCOMES] = [
        Self::Accepted,
        Self::Repeat,
        Self::Duplicate,
        Self::Late,
        Self::Filtered,
        Self::Refused,
        Self::Malformed,
    ];

    /// The outcome with this number.
    #[inline]
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < OUTCOMES { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The name used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Repeat => "repeat",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Filtered => "filtered",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
        }
    }
}

/// Which part of the books a reason belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The absence of a reason.
    None,
    /// A packet that is not ours: the kernel gets it.
    Passed,
    /// A packet of ours on its way to a worker.
    Delivered,
    /// A packet or click that breaks the protocol.
    Malformed,
    /// A packet or click that is well formed and not taken.
    Refused,
    /// A click that is counted as gross only.
    Filtered,
    /// Lost before any of our code saw it.
    Unseen,
}

impl Class {
    /// The name used as metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Passed => "passed",
            Self::Delivered => "delivered",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Filtered => "filtered",
            Self::Unseen => "unseen",
        }
    }
}

/// The size of a table indexed by reason number.
pub const REASON_SLOTS: usize = 192;

macro_rules! reasons {
    ($( $number:literal $variant:ident $name:literal $class:ident { $cause:literal } { $remedy:literal } )*) => {
        /// Why a packet or click met its outcome. The number is the counter's index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $( #[doc = $cause] $variant = $number, )*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $( $number => Some(Self::$variant), )* _ => None }
            }

            /// The stable name: metric label, `weir explain` argument.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// The part of the books it belongs to.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $( Self::$variant => Class::$class, )* }
            }

            /// What happened, as one sentence for an operator.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $( Self::$variant => $cause, )* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $( Self::$variant => $remedy, )* }
            }
        }
    };
}

reasons! {
    0 None "none" None
        { "There is no reason beside this outcome." } { "Nothing to do." }

    1 NotIp "not_ip" Passed
        { "The frame carries neither IPv4 nor IPv6, so the kernel handles it." } { "Nothing to do: ARP and the like." }
    2 NotUdp "not_udp" Passed
        { "The packet is not UDP, so the kernel handles it." } { "Nothing to do: ICMP, TCP and the like." }
    3 OtherAddress "other_address" Passed
        { "The destination is not one of the configured addresses, so the kernel handles it." }
        { "If these are clicks, add the address to `steer.addresses`." }
    4 OtherPort "other_port" Passed
        { "The destination port is not a click port, so the kernel handles it." }
        { "If these are clicks, add the port to `rx.udp.port` or correct the sender." }
    5 VlanTooDeep "vlan_too_deep" Passed
        { "The frame has more than four VLAN tags and cannot be read, so the kernel handles it." }
        { "Find the switch that stacks tags." }
    6 Shadowed "shadowed" Passed
        { "The packet earned a drop, but `steer.enforce` is false, so it was passed on; its own reason is counted too." }
        { "Set `steer.enforce = true` when the drop counters look right." }

    7 FragmentPassed "fragment_passed" Passed
        { "The packet is an IP fragment to a click address and `steer.fragments` is \"pass\", so the kernel handles it." }
        { "If no other service of this address needs fragments, set `steer.fragments = \"drop\"`." }

    8 SynPassed "syn_passed" Passed
        { "The packet asks the HTTP door for a connection within the rate of its source, so the kernel handles it." }
        { "Nothing to do." }

    16 Steered "steered" Delivered
        { "The packet was redirected to the core that owns its shard." } { "Nothing to do." }
    17 Local "local" Delivered
        { "The packet was delivered on the core it arrived on." } { "Nothing to do." }
    18 SteerFailed "steer_failed" Delivered
        { "The redirect to the owner's core was not possible, so the packet was delivered where it arrived." }
        { "Check that every worker's core is online; the hand-off rings carry these clicks meanwhile." }

    19 FloodBypass "flood_bypass" None
        { "So many new sources came at once that this one was not rate-limited; its packet's own reason is counted too." }
        { "A flood from spoofed sources is likely: look at `bad_magic` and `bad_tag`, and deny its prefixes; at `syn_passed`, and keep `net.ipv4.tcp_syncookies` at 1." }

    32 FrameTruncated "frame_truncated" Malformed
        { "The frame ends inside a header." } { "Look for a broken NIC, tunnel or generator on the sender's side." }
    33 IpHeaderLength "ip_header_length" Malformed
        { "The IPv4 header length is below 20 bytes." } { "Crafted or damaged packets: find the source." }
    34 IpLength "ip_length" Malformed
        { "The IP length field disagrees with the frame or the headers." } { "Crafted or damaged packets: find the source." }
    35 Fragment "fragment" Malformed
        { "The packet is an IP fragment; clicks always fit one packet." }
        { "The sender exceeds its path MTU: lower its datagram size." }
    36 ExtensionChain "extension_chain" Malformed
        { "The IPv6 extension headers are too many, or go beyond their packet." } { "Crafted packets: find the source." }
    37 UdpLength "udp_length" Malformed
        { "The UDP length disagrees with the IP length." } { "Crafted or damaged packets: find the source." }
    38 LinearCut "linear_cut" Malformed
        { "The driver split the packet before the click header ended." }
        { "Lower the MTU or turn off header split on the click interface." }

    48 HeaderShort "header_short" Malformed
        { "The payload is shorter than a click header." } { "Something other than a Weir SDK sends to the click port." }
    49 BadMagic "bad_magic" Malformed
        { "The payload does not start with the Weir magic." } { "Something other than a Weir SDK sends to the click port." }
    50 BadVersion "bad_version" Malformed
        { "The protocol version is not one this node speaks." } { "Upgrade this node before its senders." }
    51 BadFlags "bad_flags" Malformed
        { "Reserved header bits are set." } { "Upgrade this node before its senders, or correct the sender." }
    52 BadCount "bad_count" Malformed
        { "The header of a datagram counts no clicks, or more than its length can hold; or a request has none, or more than 1,000." } { "Correct the sender." }
    53 BadShard "bad_shard" Malformed
        { "The shard field is out of range or has bits beyond the shared ones." } { "Correct the sender." }
    54 BadLength "bad_length" Malformed
        { "The header's total length is not the payload's length." } { "The datagram was cut on its way, or the sender is wrong." }

    64 ClickCut "click_cut" Malformed
        { "The clicks of the datagram do not add up to its length." } { "Correct the sender." }
    65 ReservedBits "reserved_bits" Malformed
        { "Reserved bits of a click are set." } { "Upgrade this node before its senders, or correct the sender." }
    66 BadExtension "bad_extension" Malformed
        { "A click's extension is not a list of known fields in rising order." } { "Correct the sender." }
    67 ForeignTag "foreign_tag" Malformed
        { "A click with a foreign id carries a tag; only issued ids are signed." } { "Correct the sender." }
    68 BadCountry "bad_country" Malformed
        { "The country is neither empty nor two capital letters." } { "Correct the sender." }
    69 BadCoordinates "bad_coordinates" Malformed
        { "Coordinates are out of range, or set without their flag." } { "Correct the sender." }
    70 BadPrice "bad_price" Malformed
        { "The price of a click is above a million units of currency." }
        { "Correct the sender: it may give another unit than millionths." }
    71 BadJson "bad_json" Malformed
        { "The body of a request is not the JSON that its content type promises." }
        { "Correct the sender: the reply says at which line and column." }
    72 MissingField "missing_field" Malformed
        { "A click as JSON lacks a field that it needs." } { "Correct the sender: the reply names the field." }
    73 BadField "bad_field" Malformed
        { "A field of a click as JSON has a wrong type, form or range, or contradicts the signed token." }
        { "Correct the sender: the reply names the field and what is wrong." }
    74 BadToken "bad_token" Malformed
        { "The text of a signed token cannot be read." } { "The link was cut or altered, or is none of ours: look where it comes from." }

    96 DeniedSource "denied_source" Refused
        { "The source address is in a denied prefix." } { "If it should not be, remove the prefix from `steer.deny`." }
    97 RateLimited "rate_limited" Refused
        { "The source sent more packets than `steer.rate` allows." }
        { "If this is an ad server, add its prefix to `steer.allow`." }
    98 UnknownKey "unknown_key" Refused
        { "The click is signed with an issuer and key this node does not hold." }
        { "Distribute the key to `keys` before the ad server uses it." }
    99 BadTag "bad_tag" Refused
        { "The signature does not match the click." } { "The click was forged or altered, or the key differs: compare the keys." }
    100 Expired "expired" Refused
        { "The impression is older than the signature's lifetime." } { "Nothing to do: such a click is void." }
    101 NotYetIssued "not_yet_issued" Refused
        { "The impression was issued in the future." } { "Compare the clocks of this node and of the ad server." }
    102 OrdinalLimit "ordinal_limit" Refused
        { "The impression was clicked more often than can be told apart." } { "Nothing to do: a person does not click that often." }
    103 UnsignedNotAllowed "unsigned_not_allowed" Refused
        { "The click is not signed and `admission.allow_unsigned` is false." } { "Sign it, or allow unsigned traffic." }
    104 TableFull "table_full" Refused
        { "The dedupe table is at its bound; the sender was told to retry." } { "Raise `dedupe.capacity`, or add nodes." }
    105 JournalFull "journal_full" Refused
        { "The journal cannot take more; the sender was told to retry." } { "Free disk space, or find why forwarding stands still." }
    106 HandoffFull "handoff_full" Refused
        { "The ring to the owning worker is full; the sender was told to retry." }
        { "Turn steering on, group datagrams by shard, or add cores." }
    107 Draining "draining" Refused
        { "The node is shutting down; the sender was told to retry." } { "Nothing to do: the SDK resends elsewhere." }
    108 TimeUncertain "time_uncertain" Refused
        { "The node's time is uncertain and whether the click is in time depends on it; the sender was told to retry." }
        { "See `time` in `weir status`: it names the doubt about the clock and what ends it." }
    109 UnknownName "unknown_name" Refused
        { "A click names an ad, campaign, creative, placement or publisher that the catalog does not have." }
        { "Add the name to the catalog of `rx.http.catalog_file`, or correct the sender: the reply has the name." }
    110 Overloaded "overloaded" Refused
        { "The HTTP door had more to do than it can and shed what is worth least; the sender was told to retry." }
        { "Add cores or nodes." }
    111 SynRateLimited "syn_rate_limited" Refused
        { "The source asked the HTTP door for more connections than `steer.syn_rate` allows; the packet was dropped." }
        { "If this is an ad server or a proxy, add its prefix to `steer.allow`, or let it keep connections open." }
    112 OverBudget "over_budget" Refused
        { "The network, user, ad or publisher of the click brought more a second than its budget; the sender was told to retry." }
        { "If this is fair traffic, raise the budget in `[limits]`." }

    128 TestTraffic "test_traffic" Filtered
        { "The sender marked the click as a test." } { "Nothing to do." }
    129 Prefetch "prefetch" Filtered
        { "A browser prefetched the page; nobody clicked yet." } { "Nothing to do: a click that follows is counted." }
    130 DataCentre "data_centre" Filtered
        { "The user's address is in a prefix of the data-centre list." }
        { "If people are behind it, add an exception to the list: a line with `!` before the prefix." }
    131 BadPrefix "bad_prefix" Filtered
        { "The user's address is in a prefix of the known-bad list." }
        { "If it should not be, correct the list, or add an exception: a line with `!` before the prefix." }
    132 Robot "robot" Filtered
        { "By its user agent or the robots' address list the click is a robot's, or it comes from no known browser." }
        { "If people use it, add a pattern to the custom list of valid user agents." }
    133 BadActor "bad_actor" Filtered
        { "The user's address or key is in the known-bad-actor filter." }
        { "Look it up in the list the filter was built from; one in 4,000 others is taken for one that is there." }
    134 ImpossibleGeography "impossible_geography" Filtered
        { "The click names another country than the one its address is in." }
        { "If this is common, the sender fills in the country wrongly, or the prefix table is old." }
    135 Activity "activity" Filtered
        { "The user or address clicked more often than a person does, by the second or by the minute." }
        { "If many people share the address, it is a proxy: do not give its address as the user's." }

    160 SocketOverflow "socket_overflow" Unseen
        { "The socket buffer was full and the kernel dropped datagrams." } { "Raise `rx.udp.socket_buffer`, or add cores." }
}

/// The first number of the filtered reasons; a bucket's filtered counters start here.
pub const FIRST_FILTERED: u8 = 128;
/// How many filtered reasons a bucket can tell apart.
pub const FILTERED_SLOTS: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_number_name_and_texts() {
        let mut names = BTreeSet::new();
        for &reason in Reason::ALL {
            assert!(names.insert(reason.name()), "name used twice: {}", reason.name());
            assert_eq!(Reason::from_number(reason as u8), Some(reason));
            assert!((reason as usize) < REASON_SLOTS);
            assert!(reason.cause().ends_with('.') && reason.remedy().ends_with('.'), "{reason:?}");
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        assert!(Reason::ALL.is_sorted());
    }

    #[test]
    fn filtered_reasons_fit_the_slots_a_bucket_has() {
        for &reason in Reason::ALL {
            let in_range = (reason as usize).wrapping_sub(FIRST_FILTERED as usize) < FILTERED_SLOTS;
            assert_eq!(in_range, reason.class() == Class::Filtered, "{reason:?}");
        }
    }

    #[test]
    fn an_outcome_is_found_by_its_number() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_number(outcome as u8), Some(outcome));
        }
        assert_eq!(Outcome::from_number(OUTCOMES as u8), None);
    }
}
