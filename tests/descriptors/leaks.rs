//! G8: every descriptor that was opened, received, accepted or refused is closed.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio_seqpacket::SealedMemory;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageWriter, OwnedAncillaryMessage};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::descriptors::{Full, content, descriptors, file};
use crate::harness::messages::{fill, recv};
use crate::harness::peer::{self, Peer};
use crate::harness::waiting::{arm, once, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test, alone, with_pidfds};

pub fn tests() -> Vec<Test> {
    alone(
        [
            blocking![
                a_whole_life_leaves_no_descriptor,
                descriptors_passed_in_all_ways_leave_none,
                messages_left_by_dropped_receives_leave_none,
                truncated_control_data_leaves_none,
                dropped_sends_leave_none,
                dropped_and_refused_connections_leave_none,
                refused_descriptors_are_closed,
                a_runtime_dropped_with_everything_waiting_leaves_none,
                forgotten_calls_leave_none_but_their_own,
                many_runtimes_leave_none,
            ],
            tasks![
                the_number_of_a_passed_descriptor_may_be_reused_while_its_send_waits,
                receiving_takes_no_descriptor_of_its_own,
                a_payload_without_a_free_descriptor_names_the_shortage,
            ],
            with_pidfds(tasks![
                a_pidfd_that_is_not_taken_is_closed,
                a_pidfd_that_could_not_be_made_is_reported,
            ]),
        ]
        .concat(),
    )
}

async fn a_pidfd_that_is_not_taken_is_closed(cell: Cell) {
    let (a, b) = cell.pair();
    b.set_pass_pidfd(true).unwrap();
    let memory = SealedMemory::new(&[7; 5000]).unwrap();
    for _ in 0..3 {
        soon(a.send_large(b"name", &memory)).await.unwrap();
        drop(soon(b.recv_large(&mut [0; 8], 1 << 20)).await.unwrap());
        soon(a.send(b"message")).await.unwrap();
        let (mut bytes, mut control) = ([0; 8], [0; 64]);
        let (_, reader) = soon(b.recv_with_ancillary(&mut bytes, &mut control)).await.unwrap();
        // Read, and nothing taken out.
        assert!(
            reader
                .into_messages()
                .any(|message| matches!(message, OwnedAncillaryMessage::Other(_)))
        );
        let pidfds: Vec<_> =
            descriptors().into_iter().filter(|(_, file)| file.contains("pidfd")).collect();
        assert_eq!(pidfds, []);
    }
}

/// The kernel writes a negative errno where the pidfd would be, and sets no flag.
async fn a_pidfd_that_could_not_be_made_is_reported(cell: Cell) {
    let (a, b) = cell.pair();
    b.set_pass_pidfd(true).unwrap();
    for owned in [true, false, true] {
        soon(a.send(b"message")).await.unwrap();
        let full = Full::new();
        let truncated = if owned {
            let ancillary = AncillaryBuffer::new();
            let receive = b.recv_owned_with_ancillary(Vec::with_capacity(8), ancillary);
            let (info, _, ancillary) = soon(receive).await;
            assert!(ancillary.pidfd().is_none());
            info.unwrap().ancillary_truncated()
        } else {
            let (mut bytes, mut control) = ([0; 8], [0; 64]);
            let receive = b.recv_with_ancillary(&mut bytes, &mut control);
            let (_, reader) = soon(receive).await.unwrap();
            let truncated = reader.is_truncated();
            for message in reader.into_messages() {
                if let OwnedAncillaryMessage::Other(other) = message {
                    assert!(other.into_pidfd().is_none());
                }
            }
            truncated
        };
        drop(full);
        assert!(truncated, "owned: {owned}");
    }
}

async fn a_payload_without_a_free_descriptor_names_the_shortage(cell: Cell) {
    let (a, b) = cell.pair();
    let memory = SealedMemory::new(&[7; 5000]).unwrap();
    // Attempts take descriptors along from now on.
    soon(a.send_large(b"name", &memory)).await.unwrap();
    assert!(soon(b.recv_large(&mut [0; 8], 1 << 20)).await.unwrap().1.is_some());
    soon(a.send_large(b"name", &memory)).await.unwrap();
    let full = Full::new();
    let refused = soon(b.recv_large(&mut [0; 8], 1 << 20)).await.unwrap_err().to_string();
    drop(full);
    assert!(refused.contains("no free descriptor") && !refused.contains("more"), "{refused}");
    soon(a.send_large(b"name", &memory)).await.unwrap();
    assert!(soon(b.recv_large(&mut [0; 8], 1 << 20)).await.unwrap().1.is_some());
}

/// What `life` opens it closes, at the latest soon after it. It runs twice: the first one makes what
/// is made once per process.
fn leaves_nothing(life: impl Fn()) {
    life();
    let before = descriptors();
    life();
    let begin = Instant::now();
    while descriptors().len() > before.len() && begin.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(5));
    }
    let after = descriptors();
    assert!(after.len() <= before.len(), "before {before:#?}, after {after:#?}");
}

/// As [`leaves_nothing`], in a runtime that ends with it.
fn a_runtime_leaves_nothing<F: Future<Output = ()>>(cell: Cell, life: impl Fn() -> F) {
    leaves_nothing(|| {
        let runtime = cell.runtime();
        runtime.block_on(async { soon(life()).await });
    });
    // And while it lives.
    let runtime = cell.runtime();
    leaves_nothing(|| {
        runtime.block_on(async { soon(life()).await });
        // What completes later needs a runtime that runs.
        runtime.block_on(crate::harness::waiting::breathe());
        runtime.block_on(crate::harness::waiting::breathe());
    });
}

fn a_whole_life_leaves_no_descriptor(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = cell.bind(&path);
        let (client, server) = tokio::join!(async { cell.connect(&path).await }, listener.accept());
        let server = server.unwrap();
        for way in SendBy::ALL {
            call_variants::send(way, &client, b"message", &[]).await.unwrap();
            recv(&server).await;
        }
        let _ = client.as_async_fd().writable().await.unwrap();
        let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &client, Room::AMPLE));
        arm(&mut receive).await;
        server.send(b"message").await.unwrap();
        receive.await.unwrap();
        let (a, b) = cell.pair();
        drop(OwnedFd::from(a));
        drop(b);
    });
}

fn descriptors_passed_in_all_ways_leave_none(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        let (a, b) = cell.pair();
        for sending in SendBy::ALL.into_iter().filter(|way| way.carries_fds()) {
            for receiving in RecvBy::ALL {
                let fds = [file("one"), file("two")];
                let mut receive = task::spawn(call_variants::recv(receiving, &b, Room::AMPLE));
                starts_waiting(&mut receive);
                call_variants::send(sending, &a, b"message", &fds).await.unwrap();
                receive.await.unwrap();
            }
        }
        // And some that no task receives.
        call_variants::send(SendBy::Ancillary, &a, b"message", &[file("three")]).await.unwrap();
    });
}

async fn receiving_takes_no_descriptor_of_its_own(cell: Cell) {
    let exchange = async |socket: &UnixSeqpacket, peer: &Peer| {
        // More than it takes until messages that come alone are waited for in another way.
        for _ in 0..40 {
            let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, socket, Room::AMPLE));
            arm(&mut receive).await;
            peer.send(b"alone");
            soon(receive).await.unwrap();
        }
    };
    // What the runtime needs for all of its sockets.
    let (first, peer) = cell.half();
    exchange(&first, &peer).await;
    let sockets: Vec<_> = (0..4).map(|_| cell.half()).collect();
    loop {
        let before = descriptors();
        for (socket, peer) in &sockets {
            exchange(socket, peer).await;
        }
        let after = descriptors();
        let rings = [&before, &after]
            .map(|open| open.iter().filter(|(_, what)| what.contains("io_uring")).count());
        if rings[0] == rings[1] {
            assert_eq!(after, before);
            return;
        }
        // Another worker has come by and made its ring, as each does once: the runtime needs that, too.
    }
}

fn messages_left_by_dropped_receives_leave_none(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        for way in [RecvBy::Plain, RecvBy::VectoredAncillary, RecvBy::OwnedAncillary] {
            for completed in [false, true] {
                for next in [None, Some(RecvBy::Plain), Some(RecvBy::TryVectoredAncillary)] {
                    let (a, peer) = cell.half();
                    let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
                    arm(&mut receive).await;
                    peer.send_fds(b"message", &[file("one"), file("two")]);
                    if completed {
                        until_woken(&mut receive).await;
                    }
                    drop(receive);
                    if let Some(next) = next {
                        call_variants::recv(next, &a, Room::AMPLE).await.unwrap();
                    }
                }
            }
        }
    });
}

fn truncated_control_data_leaves_none(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        let (a, peer) = cell.half();
        let nine: Vec<_> = (0..9).map(|_| file("one of nine")).collect();
        for way in RecvBy::ALL {
            for control in [0, 8, 16, 20, 24, 32, 40] {
                for waiting in [false, true] {
                    let mut receive =
                        task::spawn(call_variants::recv(way, &a, Room { bytes: 3, control }));
                    if waiting {
                        starts_waiting(&mut receive);
                    }
                    peer.send_fds(b"message", &nine);
                    receive.await.unwrap();
                }
            }
        }
    });
}

fn dropped_sends_leave_none(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        for way in SendBy::QUEUED.into_iter().filter(|way| way.carries_fds()) {
            for armed in [false, true] {
                let (a, peer) = cell.half();
                fill(&a);
                let fds = [file("one"), file("two")];
                let mut send = task::spawn(call_variants::send(way, &a, b"message", &fds));
                starts_waiting(&mut send);
                if armed {
                    arm(&mut send).await;
                }
                drop(send);
                if armed {
                    peer.drain();
                }
            }
        }
    });
}

fn dropped_and_refused_connections_leave_none(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..6 {
            let path = directory.path().join(round.to_string());
            let listener = cell.bind(&path);
            let mut accept = task::spawn(listener.accept());
            arm(&mut accept).await;
            let _clients = [Peer::connect(&path), Peer::connect(&path)];
            if round % 2 == 0 {
                until_woken(&mut accept).await;
            }
            drop(accept);
            if round % 3 == 0 {
                listener.accept().await.unwrap();
            }
        }
        let full = cell.options().bind(directory.path().join("full"), 0).unwrap();
        let _first = cell.connect(directory.path().join("full")).await;
        let options = cell.options();
        let mut waiting = task::spawn(options.connect(directory.path().join("full")));
        arm(&mut waiting).await;
        drop(waiting);
        drop(full);
        options.connect(directory.path().join("full")).await.unwrap_err();
        options.connect(directory.path().join("missing")).await.unwrap_err();
        options.bind(directory.path().join("full"), 1).unwrap_err();
        options.bind(directory.path().join("no/such/directory"), 1).unwrap_err();
    });
}

fn refused_descriptors_are_closed(cell: Cell) {
    a_runtime_leaves_nothing(cell, || async move {
        cell.options().socket_from_fd(file("no socket")).unwrap_err();
        cell.options().listener_from_fd(peer::socketpair().0).unwrap_err();
        let (a, _b) = cell.pair();
        let many: Vec<_> = (0..254).map(|_| file("one of many")).collect();
        for way in [SendBy::Ancillary, SendBy::OwnedAncillary] {
            call_variants::send(way, &a, b"message", &many).await.unwrap_err();
        }
    });
    // Outside a runtime, and in one without its I/O driver.
    leaves_nothing(|| {
        cell.options().pair().unwrap_err();
        cell.options().socket_from_fd(peer::socketpair().0).unwrap_err();
        let runtime = cell.builder().build().unwrap();
        let _entered = runtime.enter();
        cell.options().pair().unwrap_err();
        cell.options().socket_from_fd(peer::socketpair().0).unwrap_err();
    });
}

fn a_runtime_dropped_with_everything_waiting_leaves_none(cell: Cell) {
    for background in [false, true] {
        leaves_nothing(|| {
            let runtime = cell.runtime();
            let (kept, handed) = runtime.block_on(async {
                let mut tasks = Vec::new();
                for n in 0..8 {
                    let (a, peer) = cell.half();
                    tasks.push(tokio::spawn(async move {
                        let _peer = peer;
                        let _ = call_variants::recv(RecvBy::QUEUED[n], &a, Room::AMPLE).await;
                    }));
                    let (a, peer) = cell.half();
                    fill(&a);
                    tasks.push(tokio::spawn(async move {
                        let _peer = peer;
                        let way = SendBy::QUEUED[n];
                        let fds = if way.carries_fds() { vec![file("a file")] } else { vec![] };
                        let _ = call_variants::send(way, &a, b"message", &fds).await;
                    }));
                }
                // One that outlives the runtime, with a message that no task took.
                let (a, peer) = cell.half();
                let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
                arm(&mut receive).await;
                peer.send_fds(b"message", &[file("a file")]);
                drop(receive);
                let handed = Arc::new(cell.pair());
                tasks.push(tokio::spawn({
                    let handed = handed.clone();
                    async move { drop(handed.0.recv(&mut [0; 16]).await) }
                }));
                crate::harness::waiting::breathe().await;
                ((a, peer), handed)
            });
            if background {
                runtime.shutdown_background();
            } else {
                drop(runtime);
            }
            drop(kept);
            drop(handed);
        });
    }
}

fn forgotten_calls_leave_none_but_their_own(cell: Cell) {
    // The sockets' own descriptors are closed though a call on them was forgotten.
    a_runtime_leaves_nothing(cell, || async move {
        for way in RecvBy::QUEUED {
            let (a, peer) = cell.half();
            let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
            arm(&mut receive).await;
            std::mem::forget(receive);
            peer.send(b"message");
            crate::harness::waiting::breathe().await;
        }
    });
}

fn many_runtimes_leave_none(cell: Cell) {
    leaves_nothing(|| {
        for n in 0..10 {
            let runtime = cell.runtime();
            let sockets = runtime.block_on(async {
                let (a, peer) = cell.half();
                let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
                arm(&mut receive).await;
                drop(receive);
                (a, peer)
            });
            if n % 2 == 0 {
                drop(runtime);
                drop(sockets);
            } else {
                drop(sockets);
                thread::spawn(move || drop(runtime)).join().unwrap();
            }
        }
    });
}

/// A file with this number, which is free. Others may be free, too: the runtime's threads close the
/// descriptors of completed operations at some later time.
fn numbered(content: &str, number: i32) -> OwnedFd {
    let mut fd = file(content);
    if fd.as_raw_fd() != number {
        fd = rustix::io::fcntl_dupfd_cloexec(fd, number).expect("a descriptor");
    }
    assert_eq!(fd.as_raw_fd(), number);
    fd
}

async fn the_number_of_a_passed_descriptor_may_be_reused_while_its_send_waits(cell: Cell) {
    let check = |peer: &Peer, file: &str| {
        let mut found = 0;
        while let Ok((bytes, fds)) = peer.try_recv_fds() {
            if bytes == b"message" {
                assert_eq!(content(&fds[0]), file);
                found += 1;
            }
        }
        found
    };
    // Borrowed, dropped while it waits: the borrow ends, and the raw fd goes to another file.
    for armed in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let right = [file("right")];
        let number = right[0].as_raw_fd();
        let mut send = task::spawn(call_variants::send(SendBy::Ancillary, &a, b"message", &right));
        starts_waiting(&mut send);
        if armed {
            arm(&mut send).await;
        }
        drop(send);
        drop(right);
        let _wrong = numbered("wrong", number);
        let mut found = check(&peer, "right");
        crate::harness::waiting::breathe().await;
        found += check(&peer, "right");
        assert!(found <= 1);
    }
    // poll_send: the file of the last call, though it has the raw fd of the first one's.
    let (a, peer) = cell.half();
    fill(&a);
    let poll = |fd: &OwnedFd| {
        let mut control = [0; 64];
        let mut writer = AncillaryMessageWriter::new(&mut control);
        writer.add_fds(&[fd]).unwrap();
        once(|cx| a.poll_send_with_ancillary(cx, b"message", &mut writer))
    };
    let first = file("first");
    let number = first.as_raw_fd();
    assert!(poll(&first).is_pending());
    crate::harness::waiting::breathe().await;
    drop(first);
    let second = numbered("second", number);
    assert!(poll(&second).is_pending());
    peer.drain();
    soon(async {
        while poll(&second).is_pending() {
            crate::harness::waiting::breathe().await;
        }
    })
    .await;
    assert_eq!(check(&peer, "second"), 1);
    crate::harness::waiting::breathe().await;
    assert_eq!(check(&peer, "second"), 0);
    // Owned: the send's own duplicates, closed by the drop or when it has completed.
    for armed in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let ancillary = [file("right")].into_iter().collect();
        let mut send = task::spawn(a.send_owned_with_ancillary(b"message".to_vec(), ancillary));
        starts_waiting(&mut send);
        if armed {
            arm(&mut send).await;
        }
        drop(send);
        let mut found = 0;
        for _ in 0..3 {
            let _wrong: Vec<_> = (0..8).map(|_| file("wrong")).collect();
            found += check(&peer, "right");
            crate::harness::waiting::breathe().await;
        }
        assert!(found <= 1);
    }
}
