//! The vocabulary of owned buffers, from tokio-uring.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use tokio_seqpacket::buf::BoundedBuf;
//!
//! let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
//! let (sent, slice) = a.send_owned(b"of this a part".slice(8..)).await;
//! assert_eq!((sent?, slice.into_inner().len()), (6, 14));
//! assert_eq!(b.recv(&mut [0; 16]).await?, 6);
//! # Ok(()) }
//! ```

pub(crate) mod owned;
pub(crate) mod pool;

pub use tokio_uring::buf::{BoundedBuf, BoundedBufMut, IoBuf, IoBufMut, Slice};
