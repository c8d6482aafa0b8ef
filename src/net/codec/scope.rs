//! The descriptors of the message that is encoded or decoded on this thread.
//!
//! The traits of tokio-util and serde have no parameter for them. A trait of this crate, implemented for every codec of
//! tokio-util, would exclude codecs that are generic over their items (E0119: a crate that uses them could implement
//! `Encoder` for them). So a [`Scope`] holds the descriptors in a thread-local variable while a codec is called. It ends with
//! that call, also by a panic, and gives way to the scope that was there before.

use std::cell::RefCell;
use std::io;
#[cfg(feature = "serde")]
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::MAX_FDS;
use crate::types::ucred::UCred;
use crate::util::close::close;

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

struct Scope {
    kind: Kind,
    /// Those to send, or those that came and were not taken yet.
    fds: Vec<Option<OwnedFd>>,
    /// The first error. Formats may replace the text of an error by their own.
    error: Option<io::Error>,
}

enum Kind {
    Encode { max_fds: usize },
    Decode { credentials: Option<UCred> },
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Kind::Decode { .. } = self.kind {
            self.fds.drain(..).flatten().for_each(close);
        }
    }
}

/// The time in which a scope is the current one.
struct Entered {
    outer: Option<Scope>,
}

impl Entered {
    fn new(kind: Kind, fds: Vec<OwnedFd>) -> Self {
        let fds = fds.into_iter().map(Some).collect();
        Self { outer: SCOPE.replace(Some(Scope { kind, fds, error: None })) }
    }

    fn leave(self) -> Scope {
        SCOPE.take().expect("inner scopes have restored this one")
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(SCOPE.replace(self.outer.take()));
    }
}

/// Calls `encode`, and adds the descriptors of the value that it encodes to `ancillary`.
///
/// Inside `encode`, `Passed` duplicates its descriptor (`fcntl(2)`, `F_DUPFD_CLOEXEC`) and writes its
/// index. [`WithFds`](crate::codec::WithFds) adds descriptors, too. Any format will do. This is for calls of a socket that take
/// an [`AncillaryBuffer`], and for hand-written codecs of another socket type.
/// [`Framed`](crate::Framed) calls it by itself.
///
/// # Errors
/// Those of `encode`. `ancillary` is as it was then, and the duplicates are closed. A descriptor that could not be passed
/// is the error even if the format has replaced it by one of its own: no free descriptor, or more than 253 in one message.
///
/// ```
/// # #[cfg(feature = "postcard")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::fs::File;
/// use std::io::{Error, ErrorKind};
/// use tokio_seqpacket::UnixSeqpacket;
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
/// use tokio_seqpacket::codec::{Passed, decode_with_fds, encode_with_fds};
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let value = ("a file", Passed(File::open("/proc/self/comm")?));
/// let mut ancillary = AncillaryBuffer::new();
/// // Any format of serde.
/// let bytes = encode_with_fds(&mut ancillary, || {
///     postcard::to_stdvec(&value).map_err(|error| Error::new(ErrorKind::InvalidInput, error))
/// })?;
/// a.send_owned_with_ancillary(bytes, ancillary).await.0?;
///
/// let (received, bytes, mut ancillary) =
///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
/// assert!(!received?.ancillary_truncated());
/// let (name, Passed(file)): (String, Passed<File>) = decode_with_fds(&mut ancillary, || {
///     postcard::from_bytes(&bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
/// })?;
/// assert_eq!((&name[..], file.metadata()?.is_file()), ("a file", true));
/// # Ok(()) }
/// # #[cfg(not(feature = "postcard"))] fn main() {}
/// ```
pub fn encode_with_fds<T, E: From<io::Error>>(
    ancillary: &mut AncillaryBuffer,
    encode: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let max_fds = MAX_FDS.saturating_sub(ancillary.fds().len());
    encode_up_to(max_fds, ancillary, encode)
}

/// Calls `encode` as [`encode_with_fds`] does, with another limit.
pub(crate) fn encode_up_to<T, E: From<io::Error>>(
    max_fds: usize,
    ancillary: &mut AncillaryBuffer,
    encode: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let entered = Entered::new(Kind::Encode { max_fds }, Vec::new());
    let encoded = encode();
    let mut scope = entered.leave();
    let value = encoded.map_err(|error| scope.error.take().map_or(error, E::from))?;
    for fd in scope.fds.drain(..).flatten() {
        ancillary.push_fd(fd)?;
    }
    Ok(value)
}

/// Calls `decode` with the descriptors and the credentials in `ancillary`.
///
/// Inside `decode`, `Passed` takes the descriptor with its index, and
/// [`WithFds`](crate::codec::WithFds) the others. `ancillary` has no descriptors afterwards.
///
/// # Errors
/// Those of `decode`, and `InvalidData` for a descriptor that the value does not name. A descriptor that is named twice, or
/// did not come, or is not of the type that was asked for is the error even if the format has replaced it by one of its own.
/// All descriptors are closed then. Those that were not taken yet are closed as
/// [`guide::descriptors`](crate::guide::descriptors#descriptors-that-nothing-asked-for) has it.
///
/// ```
/// # #[cfg(feature = "postcard")] fn main() -> std::io::Result<()> {
/// use std::fs::File;
/// use std::io::{Error, ErrorKind};
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
/// use tokio_seqpacket::codec::{Passed, decode_with_fds};
///
/// // Two descriptors, and a value that names the first one only.
/// let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
/// let mut ancillary = AncillaryBuffer::from_iter(fds);
/// let decoded: Result<Passed<File>, Error> = decode_with_fds(&mut ancillary, || {
///     postcard::from_bytes(&[0]).map_err(|error| Error::new(ErrorKind::InvalidData, error))
/// });
/// assert!(decoded.unwrap_err().to_string().contains("descriptor 1"));
/// assert!(ancillary.is_empty());
/// # Ok(()) }
/// # #[cfg(not(feature = "postcard"))] fn main() {}
/// ```
pub fn decode_with_fds<T, E: From<io::Error>>(
    ancillary: &mut AncillaryBuffer,
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let kind = Kind::Decode { credentials: ancillary.credentials() };
    let entered = Entered::new(kind, ancillary.take_fds());
    let decoded = decode();
    let mut scope = entered.leave();
    let value = decoded.map_err(|error| scope.error.take().map_or(error, E::from))?;
    let came = scope.fds.len();
    match scope.fds.iter().position(Option::is_some) {
        None => Ok(value),
        Some(index) => Err(invalid(format!(
            "the value does not name descriptor {index} of the {came} that came with its message"
        ))
        .into()),
    }
}

/// Calls the codec of a message that takes no descriptors along. Those of a message around it are not available meanwhile.
pub(crate) fn without_fds<T>(call: impl FnOnce() -> T) -> T {
    let _entered = Entered { outer: SCOPE.take() };
    call()
}

/// Returns whether a message is being encoded or decoded on this thread.
#[cfg(feature = "postcard")]
pub(super) fn is_entered() -> bool {
    SCOPE.with_borrow(Option::is_some)
}

/// Notes an error of a descriptor, which a format may replace by its own. Returns its text.
#[cfg(feature = "serde")]
pub(super) fn note(error: io::Error) -> String {
    let text = error.to_string();
    SCOPE.with_borrow_mut(|scope| {
        if let Some(scope) = scope {
            scope.error.get_or_insert(error);
        }
    });
    text
}

/// Adds a duplicate to the message that is being encoded, and returns its index.
#[cfg(feature = "serde")]
pub(super) fn pass(fd: BorrowedFd<'_>) -> io::Result<u32> {
    check_another()?;
    pass_owned(fd.try_clone_to_owned()?)
}

/// Adds a descriptor to the message that is being encoded, and returns its index.
pub(super) fn pass_owned(fd: OwnedFd) -> io::Result<u32> {
    check_another()?;
    SCOPE.with_borrow_mut(|scope| {
        let scope = scope.as_mut().expect("checked");
        scope.fds.push(Some(fd));
        Ok(scope.fds.len() as u32 - 1)
    })
}

/// Checks that the message that is being encoded may have another descriptor.
fn check_another() -> io::Result<()> {
    let refused = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    SCOPE.with_borrow(|scope| match scope {
        Some(Scope { kind: Kind::Encode { max_fds }, fds, .. }) if fds.len() < *max_fds => Ok(()),
        Some(Scope { kind: Kind::Encode { max_fds: 1.. }, fds, .. }) => refused(format!(
            "one message may not carry more than {} file descriptors (Framed::max_fds, at most \
             {MAX_FDS})",
            fds.len()
        )),
        _ => refused(
            "no file descriptor may be passed here: Framed::max_fds or encode_with_fds allows it"
                .into(),
        ),
    })
}

/// Takes the descriptor with this index out of the message that is being decoded.
#[cfg(feature = "serde")]
pub(super) fn take(index: u32) -> io::Result<OwnedFd> {
    in_decode(|fds, _| {
        let came = fds.len();
        match fds.get_mut(index as usize).map(Option::take) {
            Some(Some(fd)) => Ok(fd),
            Some(None) => Err(invalid(format!("the value names descriptor {index} twice"))),
            None if came == 0 => Err(invalid(format!(
                "the value names descriptor {index}, and none came with its message \
                 (Framed::max_fds receives them)"
            ))),
            None => Err(invalid(format!(
                "the value names descriptor {index}, and {came} came with its message"
            ))),
        }
    })
}

/// Takes the descriptors that are left out of the message that is being decoded.
pub(super) fn take_all() -> io::Result<Vec<OwnedFd>> {
    in_decode(|fds, _| Ok(fds.iter_mut().filter_map(Option::take).collect()))
}

/// Returns the credentials that came with the message that is being decoded.
pub(super) fn credentials() -> io::Result<UCred> {
    in_decode(|_, credentials| {
        credentials.ok_or_else(|| {
            invalid(
                "no credentials came with the message (set_pass_credentials asks the kernel for them)"
                    .into(),
            )
        })
    })
}

fn in_decode<T>(
    take: impl FnOnce(&mut [Option<OwnedFd>], Option<UCred>) -> io::Result<T>,
) -> io::Result<T> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Some(Scope { kind: Kind::Decode { credentials }, fds, .. }) => take(fds, *credentials),
        _ => Err(invalid(
            "descriptors and credentials are available only in a message that is received with \
             them: Framed::max_fds or decode_with_fds does that"
                .into(),
        )),
    })
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
