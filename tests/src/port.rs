//! Ports of loopback for what a lab starts.

use std::net::TcpListener;

use anyhow::Result;

/// TCP ports of loopback that are free now. All are held until all are known: else two may be one and the same.
///
/// # Errors
/// When there are not as many.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let held: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, held) in ports.iter_mut().zip(&held) {
        *port = held.local_addr()?.port();
    }
    Ok(ports)
}
