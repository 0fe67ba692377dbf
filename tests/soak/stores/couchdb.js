// A CouchDB for tests, which forgets everything at its end: PouchDB's server (npm: express-pouchdb). Argument: the port.
const require_ = require("module").createRequire(process.cwd() + "/"); // modules are where we run
const PouchDB = require_("pouchdb-core").plugin(require_("pouchdb-adapter-memory"));
const options = { inMemoryConfig: true, mode: "minimumForPouchDB" };
const server = require_("express")();
const couch = require_("express-pouchdb")(PouchDB.defaults({ adapter: "memory" }), options);
couch.set("etag", (body) => { // as CouchDB has it: the revision of the document
  const found = /"_rev":"([^"]+)"/.exec(body);
  return found ? `"${found[1]}"` : undefined;
});
server.use(couch);
server.listen(Number(process.argv[2]), "127.0.0.1");
