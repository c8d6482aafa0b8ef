//! Sending and receiving on sockets of the library.

use std::io;
use std::panic::Location;

use tokio_seqpacket::UnixSeqpacket;

use super::waiting::soon;

pub const FILLER: &[u8] = b"filler";

/// Send until the peer's queue is full; returns the number of messages.
pub fn fill(socket: &UnixSeqpacket) -> usize {
    let mut count = 0;
    loop {
        match socket.try_send(FILLER) {
            Ok(_) => count += 1,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                assert!(count > 10, "a queue of {count} messages");
                return count;
            }
        }
    }
}

/// Receive a message whole.
pub async fn recv(socket: &UnixSeqpacket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let len = soon(socket.recv(&mut buffer)).await.expect("a message");
    buffer[..len].to_vec()
}

/// Receive messages up to and with `last`, without the [`FILLER`]s.
pub async fn recv_up_to(socket: &UnixSeqpacket, last: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    loop {
        let message = recv(socket).await;
        assert_ne!(message, b"", "end of stream before {}", last.escape_ascii());
        let done = message == last;
        if message != FILLER {
            messages.push(message);
        }
        if done {
            return messages;
        }
    }
}

/// Nothing is left for this socket to receive: what is sent now comes next.
#[track_caller]
pub fn nothing_is_left<'a>(
    socket: &'a UnixSeqpacket,
    peer: &'a super::peer::Peer,
) -> impl Future<Output = ()> + 'a {
    let line = Location::caller();
    async move {
        peer.send(b"the end");
        let message = recv(socket).await;
        assert_eq!(message, b"the end", "another message first, at {line}");
    }
}

pub fn escaped(messages: &[Vec<u8>]) -> Vec<String> {
    messages.iter().map(|message| message.escape_ascii().to_string()).collect()
}

/// Messages go back and forth between two sockets.
pub async fn echoes(a: &UnixSeqpacket, b: &UnixSeqpacket, rounds: u32) {
    let (mut here, mut there) = ([0; 16], [0; 16]);
    for round in 0..rounds {
        let request = round.to_ne_bytes();
        let asking = async {
            a.send(&request).await.expect("sent");
            a.recv(&mut here).await.expect("an answer")
        };
        let answering = async {
            let len = b.recv(&mut there).await.expect("a request");
            b.send(&there[..len]).await.expect("sent");
        };
        let (len, ()) = soon(async { tokio::join!(asking, answering) }).await;
        assert_eq!(here[..len], request);
    }
}

/// Numbers that look random and are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
