//! tokio-seqpacket 0.8.2 at the other end.

use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::AsFd;

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options};
use tokio_seqpacket_upstream as upstream;

use crate::harness::Test;
use crate::{Place, connect, recv, run, with};

pub(crate) fn tests() -> Vec<Test> {
    with![None; upstream_connects_to_us, we_connect_to_upstream, descriptors_go_both_ways]
}

async fn talk(ours: &tokio_seqpacket::UnixSeqpacket, theirs: &upstream::UnixSeqpacket) {
    let mut buffer = [0; 64];
    for n in 0..100u8 {
        // Also while it waits.
        let message = [n; 10];
        let (sent, len) = tokio::join!(ours.send(&message), theirs.recv(&mut buffer));
        assert_eq!((sent.unwrap(), len.unwrap(), buffer[9]), (10, 10, n));
        theirs.send(&[n; 20]).await.unwrap();
        assert_eq!(recv(ours).await, [n; 20]);
    }
    assert_eq!(theirs.peer_cred().unwrap().pid(), ours.peer_cred().unwrap().pid());
}

fn upstream_connects_to_us(backend: Backend) {
    run(async {
        let place = Place::new();
        let listener = Options::new().backend(backend).bind(&place.path, 4).unwrap();
        let theirs = upstream::UnixSeqpacket::connect(&place.path).await.unwrap();
        let ours = listener.accept().await.unwrap();
        talk(&ours, &theirs).await;
        drop(theirs);
        assert_eq!(recv(&ours).await, b"");
    });
}

fn we_connect_to_upstream(backend: Backend) {
    run(async {
        let place = Place::new();
        let mut listener = upstream::UnixSeqpacketListener::bind(&place.path).unwrap();
        let ours = connect(backend, &place.path).await;
        let theirs = listener.accept().await.unwrap();
        talk(&ours, &theirs).await;
        drop(ours);
        assert_eq!(theirs.recv(&mut [0; 1]).await.unwrap(), 0);
    });
}

fn descriptors_go_both_ways(backend: Backend) {
    run(async {
        let place = Place::new();
        let listener = Options::new().backend(backend).bind(&place.path, 4).unwrap();
        let theirs = upstream::UnixSeqpacket::connect(&place.path).await.unwrap();
        let ours = listener.accept().await.unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"passed").unwrap();

        let mut space = [0; 128];
        let mut writer = upstream::ancillary::AncillaryMessageWriter::new(&mut space);
        writer.add_fds(&[file.as_fd()]).unwrap();
        theirs.send_vectored_with_ancillary(&[IoSlice::new(b"a file")], &mut writer).await.unwrap();
        let (info, _, mut ancillary) =
            ours.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
        assert_eq!(info.unwrap().bytes_read(), 6);
        let back: AncillaryBuffer = ancillary.drain_fds().collect();
        ours.send_owned_with_ancillary(b"back".to_vec(), back).await.0.unwrap();

        let (mut bytes, mut space) = ([0; 64], [0; 128]);
        let (len, reader) = theirs
            .recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut space)
            .await
            .unwrap();
        assert_eq!(len, 4);
        for message in reader.into_messages() {
            if let upstream::ancillary::OwnedAncillaryMessage::FileDescriptors(mut fds) = message
                && let Some(fd) = fds.next()
            {
                let mut text = String::new();
                let mut file = std::fs::File::from(fd);
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, "passed");
                return;
            }
        }
        panic!("no descriptor came back");
    });
}
