//! Two and three transports in one process, over real sockets.

mod calls;
mod ends;
mod identity;
mod mesh;
mod order;
mod raw;
mod renewal;
mod wan;
