//! The counters of a socket: every way to send and to receive counts each message once, with its bytes and descriptors.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{MessagesOptions, SocketCounters, UnixSeqpacket};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::{FILLER, fill, recv};
use crate::harness::waiting::{arm, breathe, soon, starts_waiting};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        every_way_to_send_counts_its_message,
        every_way_to_send_counts_a_message_that_waited,
        every_way_to_receive_counts_its_message,
        every_way_to_receive_counts_a_message_that_it_waited_for,
        what_does_not_fit_is_not_counted,
        a_dropped_send_counts_nothing,
        a_message_counts_when_a_receive_returns_it,
        peeks_and_calls_that_fail_count_nothing,
        an_empty_message_counts_and_the_end_of_the_stream_does_not,
        batches_count_each_message,
        streams_count_each_message_once,
        halves_have_the_counters_of_their_socket,
        one_task_for_each_direction_counts_exactly,
    ]
}

/// Messages, bytes and descriptors.
type Carried = (u64, u64, u64);

fn sent(counters: SocketCounters) -> Carried {
    (counters.messages_sent, counters.bytes_sent, counters.fds_sent)
}

fn received(counters: SocketCounters) -> Carried {
    (counters.messages_received, counters.bytes_received, counters.fds_received)
}

fn two_files() -> Vec<OwnedFd> {
    (0..2).map(|_| File::open("/dev/null").unwrap().into()).collect()
}

fn files_for(carries: bool) -> Vec<OwnedFd> {
    if carries { two_files() } else { Vec::new() }
}

const MESSAGE: &[u8] = b"a message";
const LEN: u64 = MESSAGE.len() as u64;

async fn every_way_to_send_counts_its_message(cell: Cell) {
    for way in SendBy::ALL {
        let (a, b) = cell.pair();
        let fds = files_for(way.carries_fds());
        for count in 1..4 {
            soon(call_variants::send(way, &a, MESSAGE, &fds)).await.unwrap();
            let expected = (count, count * LEN, count * fds.len() as u64);
            assert_eq!(sent(a.counters()), expected, "{way:?}");
            recv(&b).await;
        }
        assert_eq!(received(a.counters()), (0, 0, 0), "{way:?}");
        assert_eq!(sent(b.counters()), (0, 0, 0), "{way:?}");
    }
}

async fn every_way_to_send_counts_a_message_that_waited(cell: Cell) {
    for way in SendBy::ALL {
        let (a, b) = cell.pair();
        let fds = files_for(way.carries_fds());
        let filled = fill(&a) as u64;
        let bytes = filled * FILLER.len() as u64;
        assert_eq!(sent(a.counters()), (filled, bytes, 0), "{way:?}");
        let mut send = task::spawn(call_variants::send(way, &a, MESSAGE, &fds));
        arm(&mut send).await;
        assert_eq!(sent(a.counters()), (filled, bytes, 0), "{way:?}");
        assert!(a.counters().sends_parked > 0, "{way:?}");
        for _ in 0..filled {
            recv(&b).await;
        }
        soon(send).await.unwrap();
        assert_eq!(sent(a.counters()), (filled + 1, bytes + LEN, fds.len() as u64), "{way:?}");
    }
}

async fn every_way_to_receive_counts_its_message(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, b) = cell.pair();
        let fds = files_for(way.carries_fds());
        for count in 1..4 {
            soon(call_variants::send(SendBy::Ancillary, &a, MESSAGE, &fds)).await.unwrap();
            let got = soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
            assert_eq!((&got.bytes[..], got.fds.len()), (MESSAGE, fds.len()), "{way:?}");
            let expected = (count, count * LEN, count * fds.len() as u64);
            assert_eq!(received(b.counters()), expected, "{way:?}");
        }
        assert_eq!(sent(b.counters()), (0, 0, 0), "{way:?}");
        assert_eq!(received(a.counters()), (0, 0, 0), "{way:?}");
    }
}

async fn every_way_to_receive_counts_a_message_that_it_waited_for(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, b) = cell.pair();
        let fds = files_for(way.carries_fds());
        let mut receive = task::spawn(call_variants::recv(way, &b, Room::AMPLE));
        arm(&mut receive).await;
        assert_eq!(received(b.counters()), (0, 0, 0), "{way:?}");
        assert!(b.counters().receives_parked > 0, "{way:?}");
        soon(call_variants::send(SendBy::Ancillary, &a, MESSAGE, &fds)).await.unwrap();
        soon(receive).await.unwrap();
        assert_eq!(received(b.counters()), (1, LEN, fds.len() as u64), "{way:?}");
    }
}

async fn what_does_not_fit_is_not_counted(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, b) = cell.pair();
        soon(call_variants::send(SendBy::Ancillary, &a, MESSAGE, &two_files())).await.unwrap();
        let got = soon(call_variants::recv(way, &b, Room::TIGHT)).await.unwrap();
        let expected = (1, got.bytes.len() as u64, got.fds.len() as u64);
        assert_eq!(expected.1, 1, "{way:?}");
        assert_eq!(received(b.counters()), expected, "{way:?}");
    }
}

async fn a_dropped_send_counts_nothing(cell: Cell) {
    let (a, b) = cell.pair();
    let filled = fill(&a) as u64;
    for way in SendBy::QUEUED {
        let mut send = task::spawn(call_variants::send(way, &a, MESSAGE, &[]));
        arm(&mut send).await;
    }
    for _ in 0..filled {
        recv(&b).await;
    }
    breathe().await;
    assert_eq!(a.counters().messages_sent, filled);
    soon(a.send(MESSAGE)).await.unwrap();
    assert_eq!(a.counters().messages_sent, filled + 1);
    assert_eq!(recv(&b).await, MESSAGE);
}

/// Not while it lies in the socket.
async fn a_message_counts_when_a_receive_returns_it(cell: Cell) {
    let (a, b) = cell.pair();
    let mut buffer = [0; 64];
    let mut receive = task::spawn(b.recv(&mut buffer));
    starts_waiting(&mut receive);
    soon(a.send(MESSAGE)).await.unwrap();
    breathe().await;
    drop(receive);
    assert_eq!(received(b.counters()), (0, 0, 0));
    assert_eq!(recv(&b).await, MESSAGE);
    assert_eq!(received(b.counters()), (1, LEN, 0));
}

async fn peeks_and_calls_that_fail_count_nothing(cell: Cell) {
    let (a, b) = cell.pair();
    b.try_recv(&mut [0; 8]).unwrap_err();
    a.set_send_buffer_size(8 << 10).unwrap();
    soon(a.send(&[0; 1 << 20])).await.unwrap_err();
    soon(a.send_owned(vec![0; 1 << 20])).await.0.unwrap_err();
    soon(a.send(MESSAGE)).await.unwrap();
    assert_eq!(soon(b.peek(&mut [0; 64])).await.unwrap().message_len(), MESSAGE.len());
    soon(b.ready(Interest::READABLE)).await.unwrap();
    assert_eq!(sent(a.counters()), (1, LEN, 0));
    assert_eq!(received(b.counters()), (0, 0, 0));

    drop(b);
    soon(a.send(MESSAGE)).await.unwrap_err();
    a.try_send(MESSAGE).unwrap_err();
    // A reset, or the end of the stream.
    assert!(!matches!(soon(a.recv(&mut [0; 8])).await, Ok(1..)));
    assert_eq!(a.counters() - SocketCounters::default(), a.counters());
    assert_eq!((sent(a.counters()), received(a.counters())), ((1, LEN, 0), (0, 0, 0)));
}

async fn an_empty_message_counts_and_the_end_of_the_stream_does_not(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, b) = cell.pair();
        for message in [&b""[..], MESSAGE, b""] {
            soon(a.send(message)).await.unwrap();
        }
        soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
        soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
        assert_eq!(received(b.counters()), (2, LEN, 0), "{way:?}");
        soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
        soon(a.send(b"")).await.unwrap();
        soon(a.send(MESSAGE)).await.unwrap();
        drop(a);
        soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
        soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
        assert_eq!(received(b.counters()), (5, 2 * LEN, 0), "{way:?}");
        for _ in 0..3 {
            let end = soon(call_variants::recv(way, &b, Room::AMPLE)).await.unwrap();
            assert_eq!(end.bytes, b"");
        }
        assert_eq!(received(b.counters()), (5, 2 * LEN, 0), "{way:?}");
    }
}

async fn batches_count_each_message(cell: Cell) {
    const COUNT: u64 = 100;
    let (a, b) = cell.pair();
    let file: AncillaryBuffer = two_files().into_iter().collect();
    let mut batch = a.batch();
    for _ in 0..COUNT {
        batch.push(MESSAGE);
        batch.push_with_ancillary(MESSAGE, &file).unwrap();
    }
    let receive = async {
        let mut bytes = [[0; 64]; 8];
        let (mut infos, mut calls) = (Vec::new(), 0);
        while infos.len() < 2 * COUNT as usize {
            let mut buffers = bytes.each_mut().map(|part| IoSliceMut::new(part));
            b.recv_batch(&mut buffers, &mut infos).await.unwrap();
            calls += 1;
            assert_eq!(b.counters().messages_received, infos.len() as u64, "call {calls}");
        }
    };
    let (all, ()) = soon(async { tokio::join!(batch.send(), receive) }).await;
    assert_eq!(all.unwrap() as u64, 2 * COUNT);
    assert_eq!(sent(a.counters()), (2 * COUNT, 2 * COUNT * LEN, 2 * COUNT));
    // They are discarded there.
    assert_eq!(received(b.counters()), (2 * COUNT, 2 * COUNT * LEN, 0));
}

/// Also those that a stream leaves to the next receives.
async fn streams_count_each_message_once(cell: Cell) {
    const COUNT: u64 = 40;
    let (a, b) = cell.pair();
    let fds = two_files();
    for _ in 0..COUNT {
        soon(call_variants::send(SendBy::Ancillary, &a, MESSAGE, &fds)).await.unwrap();
        soon(a.send(b"")).await.unwrap();
    }
    let mut yielded = 0;
    for round in 0..4 {
        let mut messages = b.messages(MessagesOptions::new()).unwrap();
        for _ in 0..4 {
            soon(messages.next()).await.unwrap().unwrap();
            yielded += 1;
        }
        yielded += u64::from(messages.next_buffered().is_some());
        if round % 2 == 0 {
            yielded += soon(messages.next_batch(&mut Vec::new())).await.unwrap() as u64;
        }
        drop(messages);
        assert!(b.counters().messages_received >= yielded);
        soon(call_variants::recv(RecvBy::Ancillary, &b, Room::AMPLE)).await.unwrap();
        yielded += 1;
    }
    drop(a);
    let mut messages = b.messages(MessagesOptions::new()).unwrap();
    while let Some(message) = soon(messages.next()).await {
        message.unwrap();
        yielded += 1;
    }
    assert_eq!(yielded, 2 * COUNT);
    drop(messages);
    assert_eq!(received(b.counters()), (2 * COUNT, COUNT * LEN, 2 * COUNT));
}

async fn halves_have_the_counters_of_their_socket(cell: Cell) {
    let (a, b) = cell.pair();
    let (read, write) = a.into_split();
    soon(write.send(MESSAGE)).await.unwrap();
    recv(&b).await;
    soon(b.send(b"answer")).await.unwrap();
    soon(read.recv(&mut [0; 64])).await.unwrap();
    for half in [AsRef::<UnixSeqpacket>::as_ref(&read), write.as_ref()] {
        assert_eq!(sent(half.counters()), (1, LEN, 0));
        assert_eq!(received(half.counters()), (1, 6, 0));
    }
}

/// On any threads, with sends that go out in batches or wait for capacity.
async fn one_task_for_each_direction_counts_exactly(cell: Cell) {
    const COUNT: u64 = 5_000;
    let (a, b) = cell.pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let tasks = [(&a, &b), (&b, &a)].map(|(from, to)| {
        let (from, to) = (from.clone(), to.clone());
        let send = tokio::spawn(async move {
            for _ in 0..COUNT {
                from.send(MESSAGE).await?;
            }
            io::Result::Ok(())
        });
        let receive = tokio::spawn(async move {
            for _ in 0..COUNT {
                to.recv(&mut [0; 64]).await?;
            }
            io::Result::Ok(())
        });
        [send, receive]
    });
    for task in tasks.into_iter().flatten() {
        soon(task).await.unwrap().unwrap();
    }
    for socket in [a, b] {
        assert_eq!(sent(socket.counters()), (COUNT, COUNT * LEN, 0));
        assert_eq!(received(socket.counters()), (COUNT, COUNT * LEN, 0));
    }
}
