//! What the daemon says of itself to `peer doctor`, on the control socket.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckLine {
    /// What was looked at; stable.
    pub name: String,
    /// How bad it is: `ok`, `info`, `warn` or `fail`.
    pub state: String,
    /// The file, with its line where there is one, or the setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What was found.
    pub finding: String,
    /// What the user may do about it.
    #[serde(default)]
    pub mend: Option<String>,
}

/// What the daemon finds with its own rights, limits and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorAnswer {
    /// In the order in which one thing needs the other.
    pub checks: Vec<CheckLine>,
}
