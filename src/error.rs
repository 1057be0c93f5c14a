//! How errors are printed where `main` returns one: with `Debug`, whose line says what to do.

/// Implements `Debug` as the type's name with what its `Display` says.
macro_rules! impl_debug {
    ($error:ident) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($error))
                    .field(&format_args!("{self}"))
                    .finish()
            }
        }
    };
}

pub(crate) use impl_debug;
