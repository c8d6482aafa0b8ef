//! Every way to send and to receive, behind one signature.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::pin::Pin;

use tokio_seqpacket::ancillary::{
    AncillaryBuffer, AncillaryMessageReader, AncillaryMessageWriter, OwnedAncillaryMessage,
};
use tokio_seqpacket::{MessageInfo, UnixSeqpacket};
use tokio_test::task::{self, Spawn};

use super::waiting::starts_waiting;

pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Capacity for 253 descriptors, credentials and a pidfd.
pub const CONTROL: usize = 1104;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendBy {
    Plain,
    Vectored,
    Ancillary,
    VectoredAncillary,
    Owned,
    OwnedVectored,
    OwnedAncillary,
    OwnedVectoredAncillary,
    Poll,
    PollVectored,
    PollAncillary,
    PollVectoredAncillary,
    Try,
    TryVectored,
    TryVectoredAncillary,
    TryAncillary,
    TryOwned,
    TryOwnedVectored,
    TryOwnedAncillary,
    TryOwnedVectoredAncillary,
}

impl SendBy {
    /// Futures that take their place in the queue when they are first polled.
    pub const QUEUED: [Self; 8] = [
        Self::Plain,
        Self::Vectored,
        Self::Ancillary,
        Self::VectoredAncillary,
        Self::Owned,
        Self::OwnedVectored,
        Self::OwnedAncillary,
        Self::OwnedVectoredAncillary,
    ];
    pub const ALL: [Self; 20] = [
        Self::Plain,
        Self::Vectored,
        Self::Ancillary,
        Self::VectoredAncillary,
        Self::Owned,
        Self::OwnedVectored,
        Self::OwnedAncillary,
        Self::OwnedVectoredAncillary,
        Self::Poll,
        Self::PollVectored,
        Self::PollAncillary,
        Self::PollVectoredAncillary,
        Self::Try,
        Self::TryVectored,
        Self::TryVectoredAncillary,
        Self::TryAncillary,
        Self::TryOwned,
        Self::TryOwnedVectored,
        Self::TryOwnedAncillary,
        Self::TryOwnedVectoredAncillary,
    ];

    pub fn carries_fds(self) -> bool {
        matches!(
            self,
            Self::Ancillary
                | Self::VectoredAncillary
                | Self::OwnedAncillary
                | Self::OwnedVectoredAncillary
                | Self::PollAncillary
                | Self::PollVectoredAncillary
                | Self::TryVectoredAncillary
                | Self::TryAncillary
                | Self::TryOwnedAncillary
                | Self::TryOwnedVectoredAncillary
        )
    }
}

fn halves(message: &[u8]) -> [IoSlice<'_>; 2] {
    let (front, back) = message.split_at(message.len() / 2);
    [IoSlice::new(front), IoSlice::new(back)]
}

fn owned_halves(message: &[u8]) -> Vec<Vec<u8>> {
    halves(message).iter().map(|half| half.to_vec()).collect()
}

fn written<'a>(control: &'a mut [u8], fds: &'a [OwnedFd]) -> AncillaryMessageWriter<'a> {
    let mut writer = AncillaryMessageWriter::new(control);
    if !fds.is_empty() {
        writer.add_fds_iter(fds.iter()).expect("capacity for descriptors");
    }
    writer
}

fn duplicates(fds: &[OwnedFd]) -> AncillaryBuffer {
    fds.iter().map(|fd| fd.try_clone().expect("a duplicate")).collect()
}

/// Send `message`, with `fds` if this way carries them.
/// What [`waiting_sends`] send, one each.
pub const LETTERS: [[u8; 1]; 8] = [*b"a", *b"b", *b"c", *b"d", *b"e", *b"f", *b"g", *b"h"];

/// A send of each queued kind, where there is no capacity: all wait.
pub fn waiting_sends(socket: &UnixSeqpacket) -> Vec<Spawn<Boxed<'_, io::Result<usize>>>> {
    let mut sends: Vec<_> = LETTERS
        .iter()
        .zip(SendBy::QUEUED)
        .map(|(message, way)| task::spawn(send(way, socket, message, &[])))
        .collect();
    sends.iter_mut().for_each(starts_waiting);
    sends
}

pub fn send<'a>(
    way: SendBy,
    socket: &'a UnixSeqpacket,
    message: &'a [u8],
    fds: &'a [OwnedFd],
) -> Boxed<'a, io::Result<usize>> {
    assert!(fds.is_empty() || way.carries_fds(), "{way:?} cannot carry descriptors");
    // More than are allowed in one message, for the test of that limit.
    let mut control = vec![0; CONTROL + 64];
    match way {
        SendBy::Plain => Box::pin(socket.send(message)),
        SendBy::Vectored => Box::pin(async { socket.send_vectored(&halves(message)).await }),
        SendBy::Ancillary => Box::pin(async move {
            socket.send_with_ancillary(message, &mut written(&mut control, fds)).await
        }),
        SendBy::VectoredAncillary => Box::pin(async move {
            let mut writer = written(&mut control, fds);
            socket.send_vectored_with_ancillary(&halves(message), &mut writer).await
        }),
        SendBy::Owned => Box::pin(async { socket.send_owned(message.to_vec()).await.0 }),
        SendBy::OwnedVectored => {
            Box::pin(async { socket.send_owned_vectored(owned_halves(message)).await.0 })
        }
        SendBy::OwnedAncillary => Box::pin(async {
            socket.send_owned_with_ancillary(message.to_vec(), duplicates(fds)).await.0
        }),
        SendBy::OwnedVectoredAncillary => Box::pin(async {
            let parts = owned_halves(message);
            socket.send_owned_vectored_with_ancillary(parts, duplicates(fds)).await.0
        }),
        SendBy::Poll => Box::pin(std::future::poll_fn(|cx| socket.poll_send(cx, message))),
        SendBy::PollVectored => {
            Box::pin(std::future::poll_fn(|cx| socket.poll_send_vectored(cx, &halves(message))))
        }
        SendBy::PollAncillary => Box::pin(std::future::poll_fn(move |cx| {
            let mut control = control.clone();
            socket.poll_send_with_ancillary(cx, message, &mut written(&mut control, fds))
        })),
        SendBy::PollVectoredAncillary => Box::pin(std::future::poll_fn(move |cx| {
            let mut control = control.clone();
            let mut writer = written(&mut control, fds);
            socket.poll_send_vectored_with_ancillary(cx, &halves(message), &mut writer)
        })),
        SendBy::Try => Box::pin(when_writable(socket, move || socket.try_send(message))),
        SendBy::TryVectored => {
            Box::pin(when_writable(socket, move || socket.try_send_vectored(&halves(message))))
        }
        SendBy::TryVectoredAncillary => Box::pin(when_writable(socket, move || {
            let mut control = control.clone();
            let mut writer = written(&mut control, fds);
            socket.try_send_vectored_with_ancillary(&halves(message), &mut writer)
        })),
        SendBy::TryAncillary => Box::pin(when_writable(socket, move || {
            let mut control = control.clone();
            socket.try_send_with_ancillary(message, &mut written(&mut control, fds))
        })),
        SendBy::TryOwned => {
            Box::pin(when_writable(socket, move || socket.try_send_owned(message.to_vec()).0))
        }
        SendBy::TryOwnedVectored => Box::pin(when_writable(socket, move || {
            socket.try_send_owned_vectored(owned_halves(message)).0
        })),
        SendBy::TryOwnedAncillary => Box::pin(when_writable(socket, move || {
            socket.try_send_owned_with_ancillary(message.to_vec(), duplicates(fds)).0
        })),
        SendBy::TryOwnedVectoredAncillary => Box::pin(when_writable(socket, move || {
            let parts = owned_halves(message);
            socket.try_send_owned_vectored_with_ancillary(parts, duplicates(fds)).0
        })),
    }
}

/// `try_*` may be refused though the socket was said to be ready, but not again and again.
const REFUSALS: usize = 1000;

async fn when_writable(
    socket: &UnixSeqpacket,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    for _ in 0..REFUSALS {
        socket.writable().await?;
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    panic!("writable() said yes and try_send said no {REFUSALS} times");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvBy {
    Plain,
    Vectored,
    Ancillary,
    VectoredAncillary,
    Owned,
    OwnedVectored,
    OwnedAncillary,
    OwnedVectoredAncillary,
    Poll,
    PollVectored,
    PollVectoredAncillary,
    Try,
    TryVectored,
    TryVectoredAncillary,
    TryAncillary,
    TryOwned,
    TryOwnedVectored,
    TryOwnedAncillary,
    TryOwnedVectoredAncillary,
}

impl RecvBy {
    /// Futures that take their place in the queue when they are first polled.
    pub const QUEUED: [Self; 8] = [
        Self::Plain,
        Self::Vectored,
        Self::Ancillary,
        Self::VectoredAncillary,
        Self::Owned,
        Self::OwnedVectored,
        Self::OwnedAncillary,
        Self::OwnedVectoredAncillary,
    ];
    pub const ALL: [Self; 19] = [
        Self::Plain,
        Self::Vectored,
        Self::Ancillary,
        Self::VectoredAncillary,
        Self::Owned,
        Self::OwnedVectored,
        Self::OwnedAncillary,
        Self::OwnedVectoredAncillary,
        Self::Poll,
        Self::PollVectored,
        Self::PollVectoredAncillary,
        Self::Try,
        Self::TryVectored,
        Self::TryVectoredAncillary,
        Self::TryAncillary,
        Self::TryOwned,
        Self::TryOwnedVectored,
        Self::TryOwnedAncillary,
        Self::TryOwnedVectoredAncillary,
    ];

    pub fn carries_fds(self) -> bool {
        matches!(
            self,
            Self::Ancillary
                | Self::VectoredAncillary
                | Self::OwnedAncillary
                | Self::OwnedVectoredAncillary
                | Self::PollVectoredAncillary
                | Self::TryVectoredAncillary
                | Self::TryAncillary
                | Self::TryOwnedAncillary
                | Self::TryOwnedVectoredAncillary
        )
    }

    pub fn is_owned(self) -> bool {
        matches!(
            self,
            Self::Owned
                | Self::OwnedVectored
                | Self::OwnedAncillary
                | Self::OwnedVectoredAncillary
                | Self::TryOwned
                | Self::TryOwnedVectored
                | Self::TryOwnedAncillary
                | Self::TryOwnedVectoredAncillary
        )
    }
}

/// Capacity for a message.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub bytes: usize,
    /// For the borrowed ways. Owned control buffers always have capacity.
    pub control: usize,
}

impl Room {
    pub const AMPLE: Self = Self { bytes: 4096, control: CONTROL };
    pub const TIGHT: Self = Self { bytes: 1, control: 0 };
}

/// What was received.
#[derive(Debug, Default)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// From the owned ways.
    pub info: Option<MessageInfo>,
    /// From the ways with ancillary data.
    pub control_truncated: Option<bool>,
}

impl Got {
    fn from_reader(mut bytes: Vec<u8>, len: usize, reader: AncillaryMessageReader<'_>) -> Self {
        bytes.truncate(len);
        let control_truncated = Some(reader.is_truncated());
        let mut fds = Vec::new();
        for message in reader.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(these) = message {
                fds.extend(these);
            }
        }
        Self { bytes, fds, control_truncated, info: None }
    }

    fn from_owned(
        bytes: Vec<Vec<u8>>,
        info: MessageInfo,
        ancillary: Option<AncillaryBuffer>,
    ) -> Self {
        Self {
            bytes: bytes.concat(),
            control_truncated: ancillary.as_ref().map(|_| info.ancillary_truncated()),
            fds: ancillary.map(|mut ancillary| ancillary.take_fds()).unwrap_or_default(),
            info: Some(info),
        }
    }
}

/// A buffer in two parts.
struct Parts {
    bytes: Vec<u8>,
    at: usize,
}

impl Parts {
    fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], at: len / 2 }
    }

    fn slices(&mut self) -> [IoSliceMut<'_>; 2] {
        let (front, back) = self.bytes.split_at_mut(self.at);
        [IoSliceMut::new(front), IoSliceMut::new(back)]
    }
}

fn owned_parts(len: usize) -> Vec<Vec<u8>> {
    vec![Vec::with_capacity(len / 2), Vec::with_capacity(len - len / 2)]
}

/// Receive a message.
pub fn recv<'a>(way: RecvBy, socket: &'a UnixSeqpacket, room: Room) -> Boxed<'a, io::Result<Got>> {
    let mut bytes = vec![0; room.bytes];
    let mut parts = Parts::new(room.bytes);
    let mut control = vec![0; room.control];
    let plain = |mut bytes: Vec<u8>, len: usize| {
        bytes.truncate(len);
        Got { bytes, ..Got::default() }
    };
    match way {
        RecvBy::Plain => Box::pin(async move {
            let len = socket.recv(&mut bytes).await?;
            Ok(plain(bytes, len))
        }),
        RecvBy::Vectored => Box::pin(async move {
            let len = socket.recv_vectored(&mut parts.slices()).await?;
            Ok(plain(parts.bytes, len))
        }),
        RecvBy::Ancillary => Box::pin(async move {
            let (len, reader) = socket.recv_with_ancillary(&mut bytes, &mut control).await?;
            Ok(Got::from_reader(bytes, len, reader))
        }),
        RecvBy::VectoredAncillary => Box::pin(async move {
            let (len, reader) =
                socket.recv_vectored_with_ancillary(&mut parts.slices(), &mut control).await?;
            Ok(Got::from_reader(parts.bytes, len, reader))
        }),
        RecvBy::Owned => Box::pin(async move {
            let (info, bytes) = socket.recv_owned(Vec::with_capacity(room.bytes)).await;
            Ok(Got::from_owned(vec![bytes], info?, None))
        }),
        RecvBy::OwnedVectored => Box::pin(async move {
            let (info, bytes) = socket.recv_owned_vectored(owned_parts(room.bytes)).await;
            Ok(Got::from_owned(bytes, info?, None))
        }),
        RecvBy::OwnedAncillary => Box::pin(async move {
            let (info, bytes, ancillary) = socket
                .recv_owned_with_ancillary(Vec::with_capacity(room.bytes), AncillaryBuffer::new())
                .await;
            Ok(Got::from_owned(vec![bytes], info?, Some(ancillary)))
        }),
        RecvBy::OwnedVectoredAncillary => Box::pin(async move {
            let (info, bytes, ancillary) = socket
                .recv_owned_vectored_with_ancillary(owned_parts(room.bytes), AncillaryBuffer::new())
                .await;
            Ok(Got::from_owned(bytes, info?, Some(ancillary)))
        }),
        RecvBy::Poll => Box::pin(async move {
            let len = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bytes)).await?;
            Ok(plain(bytes, len))
        }),
        RecvBy::PollVectored => Box::pin(async move {
            let len = std::future::poll_fn(|cx| socket.poll_recv_vectored(cx, &mut parts.slices()))
                .await?;
            Ok(plain(parts.bytes, len))
        }),
        RecvBy::PollVectoredAncillary => Box::pin(std::future::poll_fn(move |cx| {
            socket
                .poll_recv_vectored_with_ancillary(cx, &mut parts.slices(), &mut control)
                .map_ok(|(len, reader)| Got::from_reader(parts.bytes.clone(), len, reader))
        })),
        RecvBy::Try => Box::pin(when_readable(socket, move || {
            let len = socket.try_recv(&mut bytes)?;
            Ok(plain(bytes.clone(), len))
        })),
        RecvBy::TryVectored => Box::pin(when_readable(socket, move || {
            let len = socket.try_recv_vectored(&mut parts.slices())?;
            Ok(plain(parts.bytes.clone(), len))
        })),
        RecvBy::TryVectoredAncillary => Box::pin(when_readable(socket, move || {
            let (len, reader) =
                socket.try_recv_vectored_with_ancillary(&mut parts.slices(), &mut control)?;
            Ok(Got::from_reader(parts.bytes.clone(), len, reader))
        })),
        RecvBy::TryAncillary => Box::pin(when_readable(socket, move || {
            let (len, reader) = socket.try_recv_with_ancillary(&mut bytes, &mut control)?;
            Ok(Got::from_reader(bytes.clone(), len, reader))
        })),
        RecvBy::TryOwned => Box::pin(when_readable(socket, move || {
            let (info, bytes) = socket.try_recv_owned(Vec::with_capacity(room.bytes));
            Ok(Got::from_owned(vec![bytes], info?, None))
        })),
        RecvBy::TryOwnedVectored => Box::pin(when_readable(socket, move || {
            let (info, bytes) = socket.try_recv_owned_vectored(owned_parts(room.bytes));
            Ok(Got::from_owned(bytes, info?, None))
        })),
        RecvBy::TryOwnedAncillary => Box::pin(when_readable(socket, move || {
            let (info, bytes, ancillary) = socket.try_recv_owned_with_ancillary(
                Vec::with_capacity(room.bytes),
                AncillaryBuffer::new(),
            );
            Ok(Got::from_owned(vec![bytes], info?, Some(ancillary)))
        })),
        RecvBy::TryOwnedVectoredAncillary => Box::pin(when_readable(socket, move || {
            let (info, bytes, ancillary) = socket.try_recv_owned_vectored_with_ancillary(
                owned_parts(room.bytes),
                AncillaryBuffer::new(),
            );
            Ok(Got::from_owned(bytes, info?, Some(ancillary)))
        })),
    }
}

async fn when_readable(
    socket: &UnixSeqpacket,
    mut call: impl FnMut() -> io::Result<Got>,
) -> io::Result<Got> {
    for _ in 0..REFUSALS {
        socket.readable().await?;
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    panic!("readable() said yes and try_recv said no {REFUSALS} times");
}
