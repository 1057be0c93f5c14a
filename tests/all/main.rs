//! What users meet, over real sockets. One module for each part of the promise.

mod support;
