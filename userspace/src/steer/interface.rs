//! What an interface has: its addresses.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The addresses of `interface`; none if it does not exist.
///
/// Addresses on other interfaces, such as anycast addresses on `lo`, are not among them.
pub(super) fn addresses(interface: &str) -> Vec<IpAddr> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the kernel gives this list to nobody but libc. `list` is a valid place for its
    // head, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: `entry` is not null and belongs to the list, which lives until it is freed.
        let item = unsafe { &*entry };
        // SAFETY: libc gives every entry a name that ends with a zero byte.
        let name = unsafe { CStr::from_ptr(item.ifa_name) };
        if name.to_bytes() == interface.as_bytes() {
            found.extend(address(item.ifa_addr));
        }
        entry = item.ifa_next;
    }
    // SAFETY: `list` came from getifaddrs and nothing borrowed from it is left.
    unsafe { libc::freeifaddrs(list) };
    found
}

fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, and every socket address begins with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a `sockaddr_in`, and libc aligns it as one.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a `sockaddr_in6`, and libc aligns it as one.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_address() {
        assert!(addresses("lo").contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_addresses() {
        assert!(addresses("weir-none").is_empty());
    }
}
