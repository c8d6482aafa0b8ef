//! G8 and G13: payloads as sealed memory. What is no such payload is refused, and closed.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use tokio_seqpacket::SealedMemory;

use crate::harness::descriptors::{file, traced};
use crate::harness::messages::recv;
use crate::harness::waiting::soon;
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_large_payload_arrives_whole_and_cannot_change,
        one_payload_goes_to_many,
        a_message_without_a_payload_is_a_message,
        memory_that_could_change_is_refused,
        what_is_no_memory_is_refused_and_closed,
        more_than_one_descriptor_is_refused_and_closed,
        a_payload_beyond_the_limit_is_refused,
    ]
}

async fn a_large_payload_arrives_whole_and_cannot_change(cell: Cell) {
    let (a, b) = cell.pair();
    let bytes: Vec<u8> = (0..10_000_000u32).map(|n| (n % 251) as u8).collect();
    let memory = SealedMemory::new(&bytes).unwrap();
    assert_eq!(soon(a.send_large(b"name", &memory)).await.unwrap(), 4);
    let mut buffer = [0; 16];
    let (info, payload) = soon(b.recv_large(&mut buffer, bytes.len())).await.unwrap();
    assert_eq!(buffer[..info.bytes_read()], b"name"[..]);
    let payload = payload.unwrap();
    let mapped = payload.map().unwrap();
    drop((memory, a));
    let fd = OwnedFd::from(payload);
    assert!(rustix::io::write(&fd, b"x").is_err());
    assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    drop(fd);
    assert!(mapped[..] == bytes[..]);
    assert!(SealedMemory::new(b"").unwrap().map().unwrap().is_empty());
}

async fn one_payload_goes_to_many(cell: Cell) {
    let memory = SealedMemory::new(b"payload").unwrap();
    for _ in 0..20 {
        let (a, b) = cell.pair();
        soon(a.send_large(b"", &memory)).await.unwrap();
        let (_, payload) = soon(b.recv_large(&mut [], 7)).await.unwrap();
        assert_eq!(payload.unwrap().map().unwrap()[..], b"payload"[..]);
    }
}

async fn a_message_without_a_payload_is_a_message(cell: Cell) {
    let (a, b) = cell.pair();
    soon(a.send(b"message")).await.unwrap();
    let (info, payload) = soon(b.recv_large(&mut [0; 4], 0)).await.unwrap();
    assert_eq!((info.bytes_read(), info.message_len(), info.truncated()), (4, 7, true));
    assert!(payload.is_none());
}

async fn memory_that_could_change_is_refused(cell: Cell) {
    let (a, b) = cell.half();
    let seals = [
        SealFlags::empty(),
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL,
        SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    ];
    for seals in seals {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(c"cheat", flags).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        b.send_fds(b"cheat", &[fd]);
        let error = soon(a.recv_large(&mut [0; 8], 1 << 20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("sealed"), "{error}");
    }
    b.send(b"next");
    assert_eq!(recv(&a).await, b"next");
}

async fn what_is_no_memory_is_refused_and_closed(cell: Cell) {
    let (a, b) = cell.half();
    let (trace, fd) = traced();
    b.send_fds(b"a pipe", &[fd]);
    let error = soon(a.recv_large(&mut [0; 8], 1 << 20)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    soon(trace.closed()).await;
}

async fn more_than_one_descriptor_is_refused_and_closed(cell: Cell) {
    for more in [1, 2, 10] {
        let (a, b) = cell.half();
        let (trace, fd) = traced();
        let mut fds = vec![OwnedFd::from(SealedMemory::new(b"memory").unwrap())];
        fds.extend((1..more).map(|_| file("")));
        fds.push(fd);
        b.send_fds(b"many", &fds);
        drop(fds);
        let error = soon(a.recv_large(&mut [0; 8], 1 << 20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        soon(trace.closed()).await;
    }
}

async fn a_payload_beyond_the_limit_is_refused(cell: Cell) {
    let (a, b) = cell.half();
    // More than there is memory: nothing is allocated until it is read.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(c"huge", flags).unwrap();
    rustix::fs::ftruncate(&fd, 1 << 40).unwrap();
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, all).unwrap();
    b.send_fds(b"huge", &[fd]);
    let error = soon(a.recv_large(&mut [0; 8], 1 << 30)).await.unwrap_err();
    assert!(error.to_string().contains("1099511627776"), "{error}");
}
