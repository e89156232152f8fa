//! Ports of loopback for what a lab starts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};

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

/// What a port of loopback answers over HTTP: the status and the body. HTTP/1.0, so that it comes in one piece.
///
/// # Errors
/// When it does not answer.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    asked(port, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
}

/// What it answers to a body, as [`get`].
///
/// # Errors
/// When it does not answer.
pub fn post(port: u16, path: &str, body: &[u8]) -> Result<(u16, String)> {
    let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    asked(port, &[head.as_bytes(), body].concat())
}

fn asked(port: u16, request: &[u8]) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}
