//! Many datagrams in one call, by recvmmsg(2) and sendmmsg(2): what the daemon's io_uring path is
//! measured against. Holds this crate's `unsafe` for it, and nothing else; safe on its outside.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use weir_common::wire::{ACK_HEADER_LEN, MAX_PAYLOAD};

/// Datagrams a call takes at most: beyond this the saving of a call is lost in the work for it.
pub const BATCH: usize = 64;
/// An Ethernet frame's payload, with room to see that one was longer.
const BUFFER: usize = 2048;
const _: () = assert!(BUFFER > MAX_PAYLOAD);
/// The largest ack: a header and one status for each of 255 clicks.
const ACK_MAX: usize = ACK_HEADER_LEN + 255;

/// Buffers for a batch, and the kernel's structures that point into them. Each part lives in a
/// heap block of its own that is never resized, so the pointers stay good when this moves.
pub struct Batch {
    messages: Box<[libc::mmsghdr; BATCH]>,
    // The four below are read and written by the kernel through `messages`.
    names: Box<[libc::sockaddr_storage; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    buffers: Box<[[u8; BUFFER]; BATCH]>,
    replies: Box<[[u8; ACK_MAX]; BATCH]>,
    received: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Takes the memory.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: an all-zero `sockaddr_storage` is a valid one, of family AF_UNSPEC.
        let name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        // SAFETY: an all-zero `mmsghdr` is a valid one: null pointers with zero lengths.
        let message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            messages: Box::new([message; BATCH]),
            names: Box::new([name; BATCH]),
            vectors: Box::new([vector; BATCH]),
            buffers: Box::new([[0; BUFFER]; BATCH]),
            replies: Box::new([[0; ACK_MAX]; BATCH]),
            received: 0,
        }
    }

    /// Waits for one datagram and takes as many more as are there. Gives their number.
    ///
    /// # Errors
    /// The socket's timeout passed, or the socket's own error.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received = 0;
        for at in 0..BATCH {
            self.vectors[at] =
                libc::iovec { iov_base: self.buffers[at].as_mut_ptr().cast(), iov_len: BUFFER };
            let header = &mut self.messages[at].msg_hdr;
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
        }
        // SAFETY: the call is needed because no crate in use has recvmmsg. Every message was just
        // pointed at one name, one vector and one buffer of its own, all alive and unshared as long
        // as `self` is borrowed here, with their true lengths; the count is that of `messages`.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        self.received = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// A datagram of the last batch.
    ///
    /// # Panics
    /// If `at` is not below the number received.
    #[must_use]
    pub fn datagram(&self, at: usize) -> &[u8] {
        assert!(at < self.received, "only {} were received", self.received);
        let len = self.messages[at].msg_len as usize;
        &self.buffers[at][..len]
    }

    /// Answers each datagram of the last batch with what `write` makes of it; length 0 for none.
    ///
    /// # Errors
    /// The socket's own error; answers before it were sent.
    pub fn reply(
        &mut self,
        socket: &UdpSocket,
        mut write: impl FnMut(&[u8], &mut [u8]) -> usize,
    ) -> io::Result<()> {
        let mut replies = 0;
        for at in 0..self.received {
            let len = self.messages[at].msg_len as usize;
            let reply_len = write(&self.buffers[at][..len], &mut self.replies[at]).min(ACK_MAX);
            if reply_len > 0 {
                let base = self.replies[at].as_mut_ptr().cast();
                self.vectors[replies] = libc::iovec { iov_base: base, iov_len: reply_len };
                let (name, name_len) =
                    (self.messages[at].msg_hdr.msg_name, self.messages[at].msg_hdr.msg_namelen);
                let header = &mut self.messages[replies].msg_hdr;
                header.msg_name = name;
                header.msg_namelen = name_len;
                header.msg_iov = &raw mut self.vectors[replies];
                replies += 1;
            }
        }
        self.received = 0;
        let mut sent = 0;
        // Each round sends at least one or ends.
        while sent < replies {
            let rest = &mut self.messages[sent..replies];
            // SAFETY: the messages of `rest` point at a name the kernel filled in, one vector, and a
            // reply of the vector's length, all alive while `self` is borrowed; the count is its own.
            let count =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            sent += usize::try_from(count).map_err(|_| io::Error::last_os_error())?.max(1);
        }
        Ok(())
    }
}

// SAFETY: the raw pointers in `messages` and `vectors` point into heap blocks that this value owns
// alone, and are set anew before each use.
unsafe impl Send for Batch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_received_in_order_and_each_is_answered_to_its_sender() {
        let node = UdpSocket::bind("127.0.0.1:0").unwrap();
        node.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let senders: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for (number, sender) in senders.iter().enumerate() {
            sender.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            sender.send_to(&[number as u8; 3], node.local_addr().unwrap()).unwrap();
        }
        let mut batch = Batch::new();
        let mut seen = 0;
        while seen < 3 {
            let count = batch.receive(&node).unwrap();
            for at in 0..count {
                assert_eq!(batch.datagram(at), [(seen + at) as u8; 3]);
            }
            // The second sender gets no answer.
            batch
                .reply(&node, |datagram, out| {
                    out[0] = datagram[0] + 10;
                    if datagram[0] == 1 { 0 } else { 1 }
                })
                .unwrap();
            seen += count;
        }
        let mut buffer = [0; 8];
        for number in [0, 2] {
            let len = senders[number].recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], [number as u8 + 10]);
        }
    }
}
