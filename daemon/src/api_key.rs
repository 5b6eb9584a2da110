//! The words about the node's signing key on the control socket. Only ever the public half.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The key binary packages are signed with.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyAnswer {
    /// Whom it says it belongs to.
    pub user_id: String,
    /// 40 upper case hex digits.
    pub fingerprint: String,
    /// The public half, armored, as keyrings import it.
    pub public: String,
    /// The file of the secret half, which stays there.
    pub path: String,
    /// True when it was made for this answer.
    #[serde(default)]
    pub made: bool,
}
