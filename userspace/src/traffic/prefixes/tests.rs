use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn list(text: &str) -> Result<PrefixList, ListError> {
    PrefixList::read("test", &Source::from_bytes(Path::new("a.list"), text.into()).unwrap(), UnixMs(0))
}

#[track_caller]
fn finds(text: &str, inside: &[&str], outside: &[&str]) {
    let list = list(text).unwrap();
    for address in inside {
        assert!(list.contains(address.parse().unwrap()), "{address} is in it");
    }
    for address in outside {
        assert!(!list.contains(address.parse().unwrap()), "{address} is not in it");
    }
}

#[test]
fn an_address_is_in_a_list_from_the_first_to_the_last_of_a_prefix() {
    finds(
        "192.0.2.0/24 # documentation\n2001:db8::/32\n",
        &["192.0.2.0", "192.0.2.255", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
        &["192.0.1.255", "192.0.3.0", "2001:db7:ffff::", "2001:db9::", "0.0.0.0", "::", "255.255.255.255"],
    );
}

#[test]
fn the_edges_of_the_address_spaces_are_found() {
    finds("0.0.0.0/0", &["0.0.0.0", "255.255.255.255", "8.8.8.8"], &["::", "2001:db8::"]);
    finds("255.255.255.255\nffff::/16", &["255.255.255.255", "ffff::1"], &["255.255.255.254", "fffe::"]);
    finds("::/0", &["::", "1fff::", "2000::", "3fff:ffff::1", "4000::", "ffff::"], &["1.2.3.4"]);
    finds("0.0.0.0/1\n::/1", &["127.255.255.255", "7fff::"], &["128.0.0.0", "8000::"]);
}

#[test]
fn the_longest_prefix_decides_so_a_part_of_a_network_can_be_an_exception() {
    finds(
        "10.0.0.0/8\n!10.1.0.0/16\n10.1.2.0/24\n!10.1.2.255/32\n!2001:db8:0:1::/64\n2001:db8::/32",
        &["10.0.0.1", "10.1.2.3", "10.2.0.0", "10.255.255.255", "2001:db8::1", "2001:db8:0:2::"],
        &["10.1.0.0", "10.1.1.255", "10.1.2.255", "10.1.3.0", "10.1.255.255", "2001:db8:0:1::9"],
    );
}

#[test]
fn an_ipv4_address_in_an_ipv6_one_is_looked_up_as_ipv4() {
    finds("192.0.2.0/24", &["::ffff:192.0.2.7"], &["::ffff:192.0.3.7", "::192.0.2.7"]);
    finds("::ffff:192.0.2.0/120", &["192.0.2.7"], &["192.0.3.7"]);
}

#[test]
fn what_follows_a_prefix_is_a_label_and_an_empty_list_finds_nothing() {
    finds("192.0.2.0/24,Example Hosting\n198.51.100.0/24\teu-west", &["192.0.2.7", "198.51.100.1"], &[]);
    finds("# nothing\n", &[], &["192.0.2.7", "::1"]);
}

#[test]
fn every_wrong_line_is_named_with_what_would_be_right() {
    let text = "192.0.2.1/24\nexample.com\n10.0.0.0/33\n10.0.0.0/8\n!10.0.0.0/8\n10.0.0.0/8\n::ffff:0:0/90\n";
    let error = list(text).unwrap_err().to_string();
    assert_eq!(
        error,
        "the list a.list cannot be used; mend these lines:\n  \
         line 1: \"192.0.2.1/24\" has bits set after its length; if the network is meant, write 192.0.2.0/24\n  \
         line 2: \"example.com\" is no prefix; write it like 203.0.113.0/24 or 2001:db8::/32\n  \
         line 3: \"10.0.0.0/33\" is no prefix; write it like 203.0.113.0/24 or 2001:db8::/32\n  \
         line 5: contradicts line 4, which has the same prefix; keep one of them\n  \
         line 7: \"::ffff:0:0/90\" has bits set after its length; if the network is meant, write ::ffc0:0:0/90"
    );
}

#[test]
fn a_list_with_more_entries_than_the_bound_is_refused() {
    let text: String = (0..=PREFIXES_MAX as u32).map(|n| format!("{}\n", Ipv4Addr::from_bits(n))).collect();
    let error = list(&text).unwrap_err().to_string();
    assert!(
        error.starts_with("the list a.list has at least 1000001 entries, more than 1000000; merge"),
        "{error}"
    );
}

/// Prefixes that often nest: few leading bits, any length.
fn nets() -> impl Strategy<Value = Vec<(IpNet, bool)>> {
    let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, len)| {
        IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits & 0x0301_00ff)), len).unwrap().trunc()
    });
    let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, len)| {
        let kept = bits & (0x6001_0003 << 96 | 0x0700_0000_0000_00ff);
        IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(kept)), len).unwrap().trunc()
    });
    prop::collection::vec((prop_oneof![v4, v6], any::<bool>()), 0..60)
}

/// Each boundary of each prefix and its neighbours: where a search can be wrong.
fn boundaries(nets: &[(IpNet, bool)]) -> Vec<IpAddr> {
    let around = |net: &IpNet| match net {
        IpNet::V4(net) => [net.network(), net.broadcast()].map(Ipv4Addr::to_bits).map(|bits| {
            [bits.wrapping_sub(1), bits, bits.wrapping_add(1)]
                .map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)))
        }),
        IpNet::V6(net) => [net.network(), net.broadcast()].map(Ipv6Addr::to_bits).map(|bits| {
            [bits.wrapping_sub(1), bits, bits.wrapping_add(1)]
                .map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)))
        }),
    };
    nets.iter().flat_map(|(net, _)| around(net)).flatten().collect()
}

proptest! {
    #[test]
    fn the_table_finds_what_a_walk_over_all_prefixes_finds(nets in nets(), more in any::<[u32; 8]>()) {
        let mut nets = nets;
        nets.sort_by_key(|&(net, _)| net);
        nets.dedup_by_key(|&mut (net, _)| net);
        let text: String =
            nets.iter().map(|(net, listed)| format!("{}{net}\n", if *listed { "" } else { "!" })).collect();
        // Prefixes of IPv4 in IPv6 are read as IPv4, and have a test of their own.
        prop_assume!(!nets.iter().any(|(net, _)| matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some())));
        let list = list(&text).unwrap();
        let walk = |address: IpAddr| {
            let around = nets.iter().filter(|(net, _)| net.contains(&address));
            around.max_by_key(|(net, _)| net.prefix_len()).is_some_and(|&(_, listed)| listed)
        };
        let more = more.map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
        for address in boundaries(&nets).into_iter().chain(more) {
            if address == address.to_canonical() {
                prop_assert_eq!(list.contains(address), walk(address), "{}", address);
            }
        }
    }
}
