"""Tables of the image database.

Once for each image, whatever number of datasets it is in:

images ──< decodings ──< scores             what depends on pixels only: (decoding, check, version) -> score
  │            └──> fingerprints ──< similar_pairs >── fingerprints
  │── takedowns                             tombstones of images that were taken down in every dataset
  └──< snapshot_images >── snapshots ──< versions             adapters trained on the snapshot
generations, images ──< ratings             by SHA-256: people's ratings of generated or collected images

Once for each dataset:

datasets ──< members >── images             an image in a dataset: verdict, reason, side of the split
   │            │──< rulings                checks that reject the member
   │            │──< overrides              people's decisions with who, when and why; win over the checks
   │            └──< captions, files
   │──< sources ──< files ──── masks        pictures that select parts of images
   └──< snapshots

champion_history                            decisions on each style's versions, and the champions
tickets                                     queue of the runs for the devices; ended tickets are the outcomes of runs
style_records                               what a style's runs leave for later ones: precision, data dealt with
starts                                      runs that new data started
removed_files                               versions whose files retention removed
unreferenced_blobs                          bytes of removed drawn images, until they are deleted

An image is identified by the SHA-256 of its bytes. Unique keys prevent concurrent collectors from adding it twice.
No decision in a dataset reads a table of another dataset. Members are ordered by id, which is the order in which they
joined their dataset. No table holds an absolute path, so the store can be moved with its folder.

The package imports its modules, so that `Base.metadata` holds all tables wherever one is imported.
"""

from sdlora.store.tables import base, datasets, images, ratings, retention, tickets, triggers, versions

__all__ = ["base", "datasets", "images", "ratings", "retention", "tickets", "triggers", "versions"]
