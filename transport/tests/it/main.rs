//! Two and three transports in one process, over real sockets, and over none.

mod bounds;
mod calls;
mod ends;
mod gathered;
mod identity;
mod in_process;
mod mesh;
mod order;
mod raw;
mod renewal;
mod wan;
