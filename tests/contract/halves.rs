//! G12: owned halves. Both are the socket, and the end of the writing half is the peer's end of stream.

use tokio_seqpacket::{OwnedReadHalf, OwnedWriteHalf};
use tokio_test::task;

use crate::harness::messages::recv;
use crate::harness::waiting::{arm, soon};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        halves_work_in_different_tasks,
        dropping_the_writing_half_ends_the_stream_and_the_reading_half_goes_on,
        dropping_the_reading_half_changes_nothing,
        a_forgotten_writing_half_ends_nothing,
        halves_are_put_together_again,
        halves_of_two_sockets_are_not_put_together,
        the_socket_closes_with_the_last_half,
    ]
}

async fn halves_work_in_different_tasks(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    let received = tokio::spawn(async move { recv(&reader).await });
    tokio::spawn(async move { writer.send(b"question").await }).await.unwrap().unwrap();
    assert_eq!(peer.recv(), b"question");
    peer.send(b"answer");
    assert_eq!(soon(received).await.unwrap(), b"answer");
    soon(peer.ended()).await;
}

async fn dropping_the_writing_half_ends_the_stream_and_the_reading_half_goes_on(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    let mut buffer = [0; 16];
    let mut receive = task::spawn(reader.recv(&mut buffer));
    arm(&mut receive).await;
    soon(writer.send(b"the last")).await.unwrap();
    drop(writer);
    assert_eq!(peer.recv(), b"the last");
    assert!(peer.sees_end());
    peer.send(b"message");
    assert_eq!(soon(receive).await.unwrap(), 7);
    let refused = soon(reader.send(b"too late")).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::BrokenPipe);
}

async fn dropping_the_reading_half_changes_nothing(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    drop(reader);
    peer.send(b"message");
    soon(writer.send(b"message")).await.unwrap();
    assert_eq!(peer.recv(), b"message");
    assert!(!peer.sees_end());
    assert_eq!(recv(&writer).await, b"message");
}

async fn a_forgotten_writing_half_ends_nothing(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    writer.forget();
    assert!(!peer.sees_end());
    drop(reader);
    soon(peer.ended()).await;
}

async fn halves_are_put_together_again(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    let (reader, writer) = reader.reunite(writer).unwrap().into_split();
    let a = writer.reunite(reader).unwrap();
    assert!(!peer.sees_end());
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(peer.recv(), b"message");
}

async fn halves_of_two_sockets_are_not_put_together(cell: Cell) {
    let (a, b) = cell.pair();
    let ((ra, wa), (rb, wb)) = (a.into_split(), b.into_split());
    let error = ra.reunite(wb).unwrap_err();
    assert!(error.to_string().contains("same socket"));
    let (ra, wb): (OwnedReadHalf, OwnedWriteHalf) = (error.0, error.1);
    let (a, b) = (ra.reunite(wa).unwrap(), wb.reunite(rb).unwrap());
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(recv(&b).await, b"message");
}

async fn the_socket_closes_with_the_last_half(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    drop(writer);
    peer.send(b"unread");
    drop(reader);
    soon(peer.ended()).await;
    assert!(peer.try_send(b"no reader").is_err());
}
