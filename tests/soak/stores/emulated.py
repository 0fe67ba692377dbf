"""Lets the real Celery work with an emulator of Firestore, which has no administration to ask for the rule of expiry."""

import os

if "FIRESTORE_EMULATOR_HOST" in os.environ:
    from google.cloud import firestore_admin_v1

    class Admin:
        def get_field(self, *args, **kwargs):
            ttl = firestore_admin_v1.Field.TtlConfig
            return firestore_admin_v1.Field(ttl_config=ttl(state=ttl.State.ACTIVE))

    firestore_admin_v1.FirestoreAdminClient = Admin
