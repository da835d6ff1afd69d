//! Which failure detector serves which group.

use folkmoot_proto::client::Operation;
use folkmoot_proto::detector::{DETECTORS, detector_path, group_of_node};
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{Digest, Zxid};

use crate::error::{ReadError, WriteError};
use crate::session::{Session, misfit};

/// A failure detector that is chosen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DetectorInfo {
    /// The group; empty for the default, which serves the sessions that are in no group and the
    /// groups without a choice of their own.
    pub group: String,
    /// Its component.
    pub digest: Digest,
    /// What its `configure` gets.
    pub configuration: String,
    /// The transaction that chose it.
    pub chosen: Zxid,
}

impl Session {
    /// Has a failure detector serve a group from here on, whether the group is there yet or not;
    /// an empty group is the default. Without a choice, what was chosen for it is no more.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot_client::PolicyChoice;
    /// let component = std::fs::read("phi_accrual.wasm")?;
    /// let phi = PolicyChoice {
    ///     digest: session.install(&component, "phi-accrual").await?,
    ///     configuration: r#"{"suspect-phi": 5}"#.to_owned(),
    /// };
    /// session.choose_detector("workers", Some(phi)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The component is not installed, or is no failure detector, or does not take the
    /// configuration; the group's name is none.
    pub async fn choose_detector(
        &self,
        group: &str,
        choice: Option<PolicyChoice>,
    ) -> Result<Zxid, WriteError> {
        if let Some(choice) = &choice {
            self.try_policy(choice.clone()).await?;
        }
        let group = group.to_owned();
        let operation = Operation::ChooseDetector { group, choice };
        match self.request(operation).await? {
            (zxid, Outcome::DetectorChosen) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// The failure detectors that are chosen, by group.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn detectors(&self) -> Result<Vec<DetectorInfo>, ReadError> {
        if self.exists(DETECTORS).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut detectors = Vec::new();
        for name in self.children(DETECTORS).await?.names {
            let group = group_of_node(&name).to_owned();
            let node = match self.get(&detector_path(&group)).await {
                Ok(node) => node,
                // It went between the listing and this.
                Err(ReadError::Refused(crate::ReadRefusal::NoNode { .. })) => continue,
                Err(error) => return Err(error),
            };
            let choice: PolicyChoice =
                serde_json::from_slice(&node.data).map_err(|error| misfit(&error))?;
            detectors.push(DetectorInfo {
                group,
                digest: choice.digest,
                configuration: choice.configuration,
                chosen: node.stat.mzxid,
            });
        }
        detectors.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(detectors)
    }
}
