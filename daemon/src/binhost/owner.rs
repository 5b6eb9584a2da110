//! Whose a binary package is: this machine's, or that of a client whose configuration it was built by.

use super::row::DecodeRowError;
use crate::swarm::PeerId;

/// Whose a package is: by whose configuration it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This machine's.
    This,
    /// Another machine's: kept for that one, never offered to this node's own Portage, and never anybody else's.
    Client(PeerId),
    /// Another machine's, of which an earlier program did not write down the name: it is given to nobody.
    Forgotten,
}

impl Owner {
    /// Of a plan for this machine, or for a client.
    #[must_use]
    pub fn of(client: Option<PeerId>) -> Self {
        client.map_or(Self::This, Self::Client)
    }

    pub(super) fn form(self) -> String {
        match self {
            Self::This => String::new(),
            Self::Client(client) => client.to_string(),
            Self::Forgotten => FORGOTTEN.to_owned(),
        }
    }

    pub(super) fn of_form(form: &str) -> Result<Self, DecodeRowError> {
        match form {
            "" => Ok(Self::This),
            FORGOTTEN => Ok(Self::Forgotten),
            client => client.parse().map(Self::Client).map_err(|_| DecodeRowError::Field("client")),
        }
    }
}

/// A client that is not known, in a row.
const FORGOTTEN: &str = "-";
