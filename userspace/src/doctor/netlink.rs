//! What the kernel says of an interface over netlink: queues, rings, RSS, XDP. Asks, and sets nothing.
//!
//! One request, one answer, both a header and attributes (`linux/netlink.h`, `linux/genetlink.h`). The
//! bytes are put together and taken apart by functions; [`Netlink`] is the socket between them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::finding::{Read, Unread};

/// `sizeof(struct nlmsghdr)`: length u32, type u16, flags u16, sequence u32, port u32.
const HEADER_LEN: usize = 16;
/// `sizeof(struct genlmsghdr)`: command u8, version u8, reserved u16.
const GENERIC_LEN: usize = 4;
/// `sizeof(struct ifinfomsg)`: family u8, pad u8, type u16, index i32, flags u32, change u32.
const LINK_LEN: usize = 16;
/// `NETLINK_ROUTE` is number zero: the protocol of who names none.
const ROUTE: Option<Protocol> = None;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// An attribute's type without the bits that say how it is written.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// The family of families, and how one is asked for.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `RTM_GETLINK`, `IFLA_XDP` and in it `IFLA_XDP_ATTACHED` and `IFLA_XDP_PROG_ID`.
const GET_LINK: u16 = 18;
const LINK_XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
/// Commands of the family `ethtool`, and its header attribute with the index in it.
const RINGS_GET: u8 = 15;
const CHANNELS_GET: u8 = 17;
const RSS_GET: u8 = 38;
const ETHTOOL_HEADER: u16 = 1;
const HEADER_INDEX: u16 = 1;
/// `NETDEV_CMD_DEV_GET` of the family `netdev` (Linux 6.3).
const DEVICE_GET: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// Larger than any answer about one interface.
const ANSWER_BYTES: usize = 64 << 10;
/// The kernel answers at once; this only keeps a defect from hanging.
const WAIT: Duration = Duration::from_secs(2);

/// A NIC's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Channels {
    /// Queues that receive now.
    pub(super) receive: u32,
    /// As many as it can have.
    pub(super) receive_max: u32,
}

/// Descriptors of a receive queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) receive: u32,
    pub(super) receive_max: u32,
}

/// The XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) program: u32,
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn half(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// Appends an attribute, padded to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(((value.len() + 4) as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A message of this type with this after its header.
fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
    out.extend(((HEADER_LEN + payload.len()) as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.extend(payload);
    out
}

/// What stands behind the header of an answer; the kernel's refusal as an error.
fn payload(answer: &[u8]) -> io::Result<&[u8]> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut");
    let len = word(answer).ok_or_else(cut)? as usize;
    let (kind, body) = (half(answer.get(4..).unwrap_or_default()), answer.get(HEADER_LEN..len));
    match (kind.ok_or_else(cut)?, body.ok_or_else(cut)?) {
        (NLMSG_ERROR, body) => {
            let code = word(body).ok_or_else(cut)?.cast_signed();
            Err(io::Error::from_raw_os_error(-code))
        }
        (_, body) => Ok(body),
    }
}

/// The value of the first attribute of this type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(half(attributes)?);
        let kind = half(attributes.get(2..)?)? & TYPE_MASK;
        let value = attributes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn number(attributes: &[u8], wanted: u16) -> u32 {
    find(attributes, wanted).and_then(word).unwrap_or(0)
}

/// `ETHTOOL_A_CHANNELS_*`: a combined channel receives as one of its own does.
fn channels(attributes: &[u8]) -> Channels {
    Channels {
        receive: number(attributes, 6) + number(attributes, 9),
        receive_max: number(attributes, 2).max(number(attributes, 5)),
    }
}

/// `ETHTOOL_A_RINGS_RX` and `_RX_MAX`.
fn ring(attributes: &[u8]) -> Ring {
    Ring { receive: number(attributes, 6), receive_max: number(attributes, 2) }
}

/// `ETHTOOL_A_RSS_INDIR`: the queue of each bucket of hashes.
fn indirection(attributes: &[u8]) -> Option<Vec<u32>> {
    Some(find(attributes, 4)?.chunks_exact(4).filter_map(word).collect())
}

fn xdp_features(attributes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(find(attributes, XDP_FEATURES)?.try_into().ok()?))
}

fn attached(attributes: &[u8]) -> Option<Attached> {
    let xdp = find(attributes, LINK_XDP)?;
    let mode = find(xdp, XDP_ATTACHED)?.first()?;
    (*mode != 0).then(|| Attached { program: number(xdp, XDP_PROGRAM) })
}

/// Sockets to the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    generic: OwnedFd,
    route: OwnedFd,
}

impl Netlink {
    pub(super) fn open() -> Read<Self> {
        let made = open(Some(GENERIC)).and_then(|generic| Ok(Self { generic, route: open(ROUTE)? }));
        made.map_err(|error| Unread(format!("the kernel gives no netlink socket: {error}")))
    }

    fn family(&self, name: &str) -> io::Result<u16> {
        let mut body = vec![GET_FAMILY, 1, 0, 0];
        attribute(&mut body, FAMILY_NAME, format!("{name}\0").as_bytes());
        let answer = ask(&self.generic, &message(CONTROL, &body))?;
        let attributes = payload(&answer)?.get(GENERIC_LEN..).unwrap_or_default();
        find(attributes, FAMILY_ID).and_then(half).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Asks a generic family, and gives the attributes of its answer.
    fn generic(&self, family: &str, command: u8, of: &[u8]) -> io::Result<Vec<u8>> {
        let mut body = vec![command, 1, 0, 0];
        body.extend(of);
        let answer = ask(&self.generic, &message(self.family(family)?, &body))?;
        Ok(payload(&answer)?.get(GENERIC_LEN..).unwrap_or_default().to_vec())
    }

    fn ethtool(&self, command: u8, index: u32, what: &str) -> Read<Vec<u8>> {
        let (mut inner, mut header) = (Vec::new(), Vec::new());
        attribute(&mut inner, HEADER_INDEX, &index.to_ne_bytes());
        attribute(&mut header, ETHTOOL_HEADER | NESTED, &inner);
        self.generic("ethtool", command, &header)
            .map_err(|error| Unread(format!("neither kernel nor driver says {what}: {error}")))
    }

    pub(super) fn channels(&self, index: u32) -> Read<Channels> {
        self.ethtool(CHANNELS_GET, index, "its channels").map(|found| channels(&found))
    }

    pub(super) fn ring(&self, index: u32) -> Read<Ring> {
        self.ethtool(RINGS_GET, index, "the size of its rings").map(|found| ring(&found))
    }

    /// The queue of each bucket of hashes (Linux 6.3).
    pub(super) fn indirection(&self, index: u32) -> Read<Vec<u32>> {
        let found = self.ethtool(RSS_GET, index, "how flows are spread")?;
        indirection(&found).ok_or_else(|| Unread("the driver has no table that spreads flows".to_owned()))
    }

    /// `enum netdev_xdp_act` of `linux/netdev.h`.
    pub(super) fn xdp_features(&self, index: u32) -> Read<u64> {
        let mut of = Vec::new();
        attribute(&mut of, DEVICE_INDEX, &index.to_ne_bytes());
        let found = self.generic("netdev", DEVICE_GET, &of);
        let found = found.map_err(|error| {
            Unread(format!("the kernel does not say what its driver knows of XDP (Linux 6.3 does): {error}"))
        })?;
        xdp_features(&found).ok_or_else(|| Unread("the kernel's answer has no XDP features".to_owned()))
    }

    pub(super) fn attached(&self, index: u32) -> Read<Option<Attached>> {
        let mut body = vec![0; LINK_LEN];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let asked = ask(&self.route, &message(GET_LINK, &body));
        let found =
            asked.and_then(|answer| Ok(attached(payload(&answer)?.get(LINK_LEN..).unwrap_or_default())));
        found.map_err(|error| Unread(format!("the kernel does not say which XDP program is there: {error}")))
    }
}

fn open(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(WAIT))?;
    Ok(socket)
}

fn ask(socket: &OwnedFd, request: &[u8]) -> io::Result<Vec<u8>> {
    sendto(socket, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = vec![0; ANSWER_BYTES];
    let (len, _) = recv(socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(len);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(all: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        all.iter().for_each(|(kind, value)| attribute(&mut out, *kind, value));
        out
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn an_attribute_is_found_behind_others_that_are_padded() {
        let all = attributes(&[(1, b"abc"), (7 | NESTED, b"wx"), (9, b"")]);
        assert_eq!(all.len() % 4, 0);
        assert_eq!(find(&all, 7), Some(&b"wx"[..]));
        assert_eq!(find(&all, 9), Some(&b""[..]));
        assert_eq!(find(&all, 2), None);
    }

    #[test]
    fn an_answer_of_any_bytes_ends_without_a_value_and_without_a_loop() {
        for bytes in [&[][..], &[0; 8], &[1, 0, 1, 0], &[200, 0, 1, 0, 5], &[3, 0, 0, 0, 0]] {
            assert_eq!(find(bytes, 1), None, "{bytes:?}");
            assert!(payload(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_kernels_error() {
        let refused = message(NLMSG_ERROR, &words(&[(-19_i32).cast_unsigned(), 0]));
        assert_eq!(payload(&refused).expect_err("refused").raw_os_error(), Some(19));
        let sound = message(GET_LINK, b"body");
        assert_eq!(payload(&sound).expect("sound"), b"body");
    }

    #[test]
    fn numbers_stand_where_the_kernels_headers_say() {
        let of = |all: &[(u16, u32)]| {
            let mut out = Vec::new();
            all.iter().for_each(|(kind, value)| attribute(&mut out, *kind, &value.to_ne_bytes()));
            out
        };
        let found = of(&[(2, 0), (5, 8), (6, 1), (9, 4)]);
        assert_eq!(channels(&found), Channels { receive: 5, receive_max: 8 });
        assert_eq!(ring(&of(&[(2, 4096), (6, 256)])), Ring { receive: 256, receive_max: 4096 });
        assert_eq!(indirection(&attributes(&[(4, &words(&[0, 1, 0]))])), Some(vec![0, 1, 0]));
        assert_eq!(indirection(&of(&[(2, 0)])), None);
        assert_eq!(xdp_features(&attributes(&[(3, &3_u64.to_ne_bytes())])), Some(3));
        let xdp = |mode| attributes(&[(LINK_XDP, &attributes(&[(2, &[mode]), (4, &words(&[77]))]))]);
        assert_eq!(attached(&xdp(1)), Some(Attached { program: 77 }));
        assert_eq!((attached(&xdp(0)), attached(&of(&[(1, 1)]))), (None, None));
    }

    #[test]
    fn the_loopback_interface_has_no_rings_and_no_program() {
        let Ok(netlink) = Netlink::open() else {
            println!("skipped: the kernel gives no netlink socket");
            return;
        };
        assert_eq!(netlink.attached(1), Ok(None));
        assert!(netlink.ring(1).is_err() && netlink.channels(1).is_err());
    }
}
