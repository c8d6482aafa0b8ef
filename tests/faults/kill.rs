//! G1 and G7: the other process is killed in mid-traffic.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::net::SendFlags;

use crate::harness::messages::echoes;
use crate::harness::waiting::soon;
use crate::harness::{Cell, Test, alone};

/// Set for the process that will be killed.
const VICTIM: &str = "SEQPACKET_FAULTS_VICTIM";

pub fn tests() -> Vec<Test> {
    alone(blocking![what_a_killed_peer_has_sent_is_delivered_and_the_reset_reported_once])
}

/// Send numbers through standard input, and note in the file that is standard output how many, until
/// killed, if this process was started for that.
pub fn victim() -> bool {
    if std::env::var_os(VICTIM).is_none() {
        return false;
    }
    let (socket, note) = (std::io::stdin(), std::io::stdout());
    for number in 0_u64.. {
        loop {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&socket, &number.to_ne_bytes(), flags) {
                Ok(_) => break,
                Err(rustix::io::Errno::AGAIN) => {
                    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
                    let _ = rustix::event::poll(&mut polled, None);
                }
                // No task needs them any more.
                Err(_) => return true,
            }
        }
        let _ = rustix::io::pwrite(&note, &(number + 1).to_ne_bytes(), 0);
    }
    true
}

fn what_a_killed_peer_has_sent_is_delivered_and_the_reset_reported_once(cell: Cell) {
    cell.leaves_nothing(async move {
        let neighbors = cell.pair();
        for (round, enough) in [0, 1, 50, 500, 2000].into_iter().enumerate() {
            for unread in [false, true] {
                let (socket, peer) = cell.half_fd();
                let socket = Arc::new(socket);
                let note: OwnedFd =
                    rustix::fs::memfd_create("note", rustix::fs::MemfdFlags::CLOEXEC)
                        .expect("a file");
                let mut child = Command::new("/proc/self/exe")
                    .env(VICTIM, "1")
                    .stdin(Stdio::from(peer))
                    .stdout(Stdio::from(note.as_fd().try_clone_to_owned().expect("a duplicate")))
                    .spawn()
                    .expect("this binary");
                if unread {
                    soon(socket.send(b"never read")).await.expect("sent");
                }
                let mut received = 0_u64;
                let mut message = [0; 8];
                while received < enough || received == 0 {
                    assert_eq!(soon(socket.recv(&mut message)).await.expect("a message"), 8);
                    assert_eq!(u64::from_ne_bytes(message), received);
                    received += 1;
                }
                // Several wait when it happens.
                let waiting: Vec<_> = (0..round)
                    .map(|_| {
                        let socket = socket.clone();
                        tokio::spawn(async move {
                            let mut message = [0; 8];
                            let len = socket.recv(&mut message).await?;
                            Ok::<_, std::io::Error>((len, u64::from_ne_bytes(message)))
                        })
                    })
                    .collect();
                child.kill().expect("a process");
                child.wait().expect("a child");
                let (mut resets, mut ends) = (0, 0);
                let mut others = Vec::new();
                let mut note_result = |result: std::io::Result<(usize, u64)>| match result {
                    Ok((0, _)) => ends += 1,
                    Ok((len, number)) => {
                        assert_eq!(len, 8);
                        others.push(number);
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                        resets += 1;
                    }
                };
                for waiting in waiting {
                    note_result(soon(waiting).await.expect("no panic"));
                }
                loop {
                    let result = soon(socket.recv(&mut message)).await;
                    let end = matches!(result, Ok(0));
                    note_result(result.map(|len| (len, u64::from_ne_bytes(message))));
                    if end {
                        break;
                    }
                }
                others.sort_unstable();
                let expected: Vec<_> = (received..).take(others.len()).collect();
                assert_eq!(others, expected, "lost or doubled");
                let mut noted = [0; 8];
                let _ = rustix::io::pread(&note, &mut noted, 0).expect("a file");
                let sent = u64::from_ne_bytes(noted);
                let all = received + others.len() as u64;
                // Killed between the message and its note, perhaps.
                assert!(all == sent || all == sent + 1, "{all} of {sent} delivered");
                assert_eq!(resets, usize::from(unread), "resets");
                assert!(ends >= 1);
                echoes(&neighbors.0, &neighbors.1, 10).await;
            }
        }
    });
}
