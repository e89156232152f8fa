//! Forged datagrams before a whole node, over a real veth with the XDP program in the driver: they end there,
//! and what is signed by a key of the node does not.

use std::net::UdpSocket;

use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::wire::{Click, Header, click_flags};
use weir_labs::clicks::numbered;
use weir_labs::veth::{NODE, NODE_INTERFACE, SENDERS, Veth, frames};
use weir_labs::{Node, NodeFolder};
use weir_sdk::{Minter, Offer};
use zerocopy::IntoBytes;

/// A datagram of one click.
fn datagram(click: &Click) -> Vec<u8> {
    [Header::new(1, size_of::<Click>()).as_bytes(), click.as_bytes()].concat()
}

/// Sends datagrams from the senders' namespace; nobody waits for acks.
fn send(veth: &Veth, port: u16, clicks: &[Click]) {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            veth.senders.enter().expect("the namespace");
            let socket = UdpSocket::bind((SENDERS[0], 0)).expect("a socket");
            for click in clicks {
                socket.send_to(&datagram(click), (NODE, port)).expect("send");
            }
        });
        sender.join().expect("the sender");
    });
}

fn wait_for(node: &mut Node<'_>, accepted: u64) {
    node.wait_until("counted", |status| status["clicks"]["outcomes"]["accepted"] == accepted)
        .expect("counted");
}

#[test]
fn forged_datagrams_end_in_the_xdp_program_and_a_new_key_is_known_there_too() {
    let veth = match Veth::new() {
        Ok(veth) => veth,
        Err(error) => return eprintln!("skipped: no network namespaces: {error:#}"),
    };
    veth.send_whole_checksums().expect("ethtool");
    let folder = NodeFolder::new(&format!(
        "[admission]\nallow_unsigned = true\n\
         [steer]\nmode = \"native\"\ninterface = \"{NODE_INTERFACE}\"\nverify_first = true\n"
    ));
    let folder = folder.expect("folder");
    folder.reconfigure("addresses = ", &format!("addresses = [\"{NODE}\"]")).expect("config");
    let text = std::fs::read_to_string(folder.key()).expect("key");
    let secret =
        |text: &str| SipKey::from_bytes(u128::from_str_radix(text.trim(), 16).expect("hex").to_be_bytes());
    let minter = |key: u16, secret: SipKey| Minter::new(Issuer(1), KeyId(key), secret, u64::from(key) << 32);
    let offer = Offer { ad: 42, ..Offer::default() };
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs() as u32;
    let mint = |minter: &mut Minter, clicks: usize| -> Vec<Click> {
        (0..clicks).map(|_| minter.mint(&offer, now_s)).collect()
    };

    let mut node = folder.start_ready().expect("ready");
    let status = node.status().expect("status");
    assert_eq!(status["steering"]["rung"], "native", "{:#}", status["steering"]);
    let (mut old, next) = (minter(1, secret(&text)), rand::random::<u128>());
    let mut new = minter(2, SipKey::from_bytes(next.to_be_bytes()));
    let mut forged = mint(&mut old, 30);
    forged.iter_mut().for_each(|click| click.price_micros = 1_000_000.into());
    let unsigned = numbered(1 << 64, 10);
    assert!(unsigned.iter().all(|click| click.flags & click_flags::FOREIGN != 0));
    send(&veth, folder.port(), &forged);
    send(&veth, folder.port(), &mint(&mut new, 20));
    send(&veth, folder.port(), &[mint(&mut old, 50), unsigned].concat());
    wait_for(&mut node, 60);
    let status = node.status().expect("status");
    assert_eq!(
        (frames(&status, "bad_tag"), frames(&status, "unknown_key")),
        (30, 20),
        "{:#}",
        status["frames"]
    );
    assert_eq!(status["clicks"]["received"], 60, "no worker saw the others");

    folder.write_private("next", &format!("{next:032x}\n")).expect("key file");
    let config = std::fs::read_to_string(folder.config()).expect("config");
    let key = "[[keys]]\nissuer = 1\nkey = 2\nfile = \"next\"\n";
    std::fs::write(folder.config(), config + key).expect("config");
    node.reload_until_told("the keys are read again").expect("reload");
    send(&veth, folder.port(), &mint(&mut new, 20));
    wait_for(&mut node, 80);
    node.drain().expect("drain");
    let status = folder.final_status().expect("final status");
    assert_eq!((frames(&status, "bad_tag"), frames(&status, "unknown_key")), (30, 20));
    assert_eq!(status["clicks"]["residual"], 0);
}
