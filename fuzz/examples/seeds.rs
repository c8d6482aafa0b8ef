//! Writes the seed corpora, from real receives and real sockets: `cargo run --example seeds` in `fuzz/`.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::net::sockopt::set_socket_passcred;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use tokio_seqpacket::{SocketAddr, UnixSeqpacket, UnixSeqpacketListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus.join(target))?;
        std::fs::write(corpus.join(target).join(name), bytes)
    };

    // Control data, after one byte that selects what is done with it, and one with the capacity to move it into.
    for credentials in [false, true] {
        for fds in [0, 1, 3, 253] {
            for capacity in [0, 16, 20, 24, 64, 2048] {
                let control = received(credentials, fds, capacity).await?;
                let from = if credentials { "credentials" } else { "plain" };
                // One of them for every action. For the others, the action that truncates again.
                let all = fds == 3 && capacity == 2048;
                for action in if all { 0..5 } else { 3..4 } {
                    let name = format!("{from}-{fds}-{capacity}-{action}");
                    write("control", &name, &[&[action, 4], &control[..]].concat())?;
                }
            }
        }
    }

    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let listener = UnixSeqpacketListener::bind(&path)?;
    for (name, path) in [
        ("pathname", listener.local_addr()?),
        ("unnamed", "".into()),
        ("abstract", "\0a name\0in the abstract".into()),
        ("longest", "p".repeat(108).into()),
        ("beyond_sun_path", "p".repeat(300).into()),
    ] {
        let address = SocketAddr::from_path(&path);
        let bytes = path.as_os_str().as_encoded_bytes();
        assert_eq!(address.is_err(), bytes.is_empty());
        // As getsockname(2) reports it: the NUL byte behind a path counts, though it may not fit.
        let nul = !bytes.is_empty() && bytes[0] != 0;
        let len = (2 + bytes.len() + usize::from(nul)) as u16;
        let family = (rustix::net::AddressFamily::UNIX.as_raw()).to_ne_bytes();
        write("address", name, &[&len.to_le_bytes(), &family, bytes].concat())?;
    }

    // Scripts: the common courses of a receive and a send (events are encoded in src/backend/model). Worker 0 batches.
    let (arrive, bulky, receive, poll, drop, freeze, poll_recv) = (0, 7, 11, 19, 27, 31, 35);
    let (send, poll_send, drop_send, read) = (39, 46, 53, 63);
    let (drive, pass, hear, fire, die, close) = (67, 81, 84, 88, 98, 99);
    let scripts: [(&str, &[u8]); 7] = [
        ("received", &[receive, arrive, pass, pass, poll]),
        ("dropped", &[receive, drive, drive, drive, drive, drop, arrive, pass, receive]),
        ("parked", &[receive, pass, pass, pass, arrive, hear, fire, fire, pass, poll]),
        ("frozen", &[bulky, receive, receive, receive, freeze, arrive, hear, fire, fire, pass]),
        ("observed", &[poll_recv, receive, arrive, hear, fire, fire, pass, drop, poll_recv]),
        (
            "queued",
            &[
                send, poll_send, poll_send, send, poll_send, poll_send, send, poll_send, pass,
                pass, drop_send, read, hear, fire, fire, pass, poll_send,
            ],
        ),
        ("died", &[receive, send, poll_send, poll_send, poll_send, drive, die, die, die, close]),
    ];
    for (name, kinds) in scripts {
        // The second byte: the first of its kind, on worker 0, of a receive or a send that a batch may carry.
        let events: Vec<u8> = kinds.iter().flat_map(|kind| [*kind, 0x38]).collect();
        write("script", name, &events)?;
    }
    Ok(())
}

/// Returns the control data of one message, as the kernel wrote it. Its descriptors are closed again.
async fn received(credentials: bool, fds: usize, capacity: usize) -> io::Result<Vec<u8>> {
    let (a, b) = UnixSeqpacket::pair()?;
    set_socket_passcred(&b, credentials)?;
    let file = std::fs::File::open("/dev/null")?;
    let mut buffer = [0; 2048];
    let mut ancillary = AncillaryMessageWriter::new(&mut buffer);
    if fds > 0 {
        ancillary.add_fds(&vec![file.as_fd(); fds])?;
    }
    a.send_vectored_with_ancillary(&[IoSlice::new(b"message")], &mut ancillary).await?;
    let mut control = vec![0; capacity];
    let mut bytes = [0; 16];
    let (_, reader) =
        b.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut control).await?;
    let len = reader.len();
    drop(reader);
    control.truncate(len);
    Ok(control)
}
