//! Pass an open file to the other end of a socket, in both styles of the API.
//!
//! `cargo run --example pass_fd`

use std::error::Error;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};

use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageWriter, OwnedAncillaryMessage};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (here, there) = UnixSeqpacket::pair()?;
    owned(&here, &there).await?;
    borrowed(&here, &there).await?;
    Ok(())
}

/// Buffers and descriptors as values, which the calls take and give back.
async fn owned(here: &UnixSeqpacket, there: &UnixSeqpacket) -> Result<(), Box<dyn Error>> {
    let mut ancillary = AncillaryBuffer::new();
    ancillary.push_fd(File::open("/proc/sys/kernel/ostype")?)?;
    let (sent, _, _) = here.send_owned_with_ancillary(b"owned".to_vec(), ancillary).await;
    sent?;

    let (received, text, mut ancillary) =
        there.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    // Descriptors are lost if this process has no free descriptors; this reports it.
    assert!(!received?.ancillary_truncated());
    for fd in ancillary.drain_fds() {
        show(&text, File::from(fd))?;
    }
    Ok(())
}

/// As in tokio-seqpacket: control data is written to, and read from, byte arrays.
async fn borrowed(here: &UnixSeqpacket, there: &UnixSeqpacket) -> Result<(), Box<dyn Error>> {
    let file = File::open("/proc/sys/kernel/osrelease")?;
    let mut control = [0; 64];
    let mut ancillary = AncillaryMessageWriter::new(&mut control);
    ancillary.add_fds(&[&file])?;
    here.send_vectored_with_ancillary(&[IoSlice::new(b"borrowed")], &mut ancillary).await?;

    let (mut text, mut control) = ([0; 64], [0; 64]);
    let (len, ancillary) =
        there.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut text)], &mut control).await?;
    assert!(!ancillary.is_truncated());
    for message in ancillary.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
            for fd in fds {
                show(&text[..len], File::from(fd))?;
            }
        }
    }
    Ok(())
}

fn show(text: &[u8], mut file: File) -> Result<(), Box<dyn Error>> {
    let mut content = String::new();
    file.read_to_string(&mut content)?;
    println!("{}: the file says {:?}", String::from_utf8_lossy(text), content.trim_end());
    Ok(())
}
