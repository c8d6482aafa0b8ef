//! The vocabulary of owned buffers, from tokio-uring.
//!
//! tokio-uring cannot be compiled with musl. There these are traits and types of the same names and shape, of this library's own.
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

#[cfg(any(test, doctest, not(target_env = "gnu")))]
#[cfg_attr(target_env = "gnu", expect(dead_code, reason = "compiled for its tests only"))]
mod traits;

#[cfg(target_env = "gnu")]
pub use tokio_uring::{
    BufResult,
    buf::{BoundedBuf, BoundedBufMut, IoBuf, IoBufMut, Slice},
};
#[cfg(not(target_env = "gnu"))]
pub use traits::{BoundedBuf, BoundedBufMut, BufResult, IoBuf, IoBufMut, Slice};
