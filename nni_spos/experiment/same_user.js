// NNI's server has no password, and whoever reaches it can run commands as the user who started it.
// Required by node before NNI's own code, this lets in processes of that user alone: Linux says in
// /proc/net to whom the other end of a connection belongs. It is asked before a byte is read.
const fs = require('fs');
const net = require('net');

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'];
const ESTABLISHED = '01';
const LOOKS = 3; // a table is read in parts, between which it changes

const uid = String(process.getuid());

// Connections of a port, with addresses as the kernel writes them; IPv4 in IPv6 as IPv4.
function connections(port) {
    const end = ':' + port.toString(16).toUpperCase().padStart(4, '0') + ' ';
    const lines = TABLES.flatMap((table) =>
        fs.existsSync(table) ? fs.readFileSync(table, 'latin1').split('\n') : []
    );
    const plain = (address) => address.replace(/^0{16}(FFFF0000|0000FFFF)/, '');
    return lines.filter((line) => line.includes(end)).map((line) => {
        const [, local, remote, state, , , , owner, , inode] = line.trim().split(/\s+/);
        return { local: plain(local), remote: plain(remote), state, owner, inode };
    });
}

function ownInode(handle) {
    const found = /^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/self/fd/${handle.fd}`));
    return found === null ? null : found[1];
}

function isOfThisUser(socket) {
    const handle = socket._handle;
    const port = socket.remotePort;
    if (!handle || !port) {
        return false; // it has ended
    }
    const inode = ownInode(handle);
    for (let look = 0; look < LOOKS; look++) {
        const open = connections(port).filter((entry) => entry.state === ESTABLISHED);
        const own = open.find((entry) => entry.inode === inode);
        const other = own && open.find(
            (entry) => entry.local === own.remote && entry.remote === own.local
        );
        if (other) {
            // What nobody holds any more belongs to user 0, with inode 0. And were this end closed by
            // now, the other could be of a later connection with the same two ports.
            return other.inode !== '0' && other.owner === uid && handle.getpeername({}) === 0;
        }
    }
    return false;
}

let hasTold = false; // once: others could fill the log

function letIn(socket) {
    let reason = 'it is not one of a process of the user who started the manager';
    try {
        if (isOfThisUser(socket)) {
            return true;
        }
    } catch (problem) {
        reason = problem.message;
    }
    if (!hasTold) {
        console.error(`refused a connection: ${reason}`);
        hasTold = true;
    }
    return false;
}

const emit = net.Server.prototype.emit;
net.Server.prototype.emit = function (event, ...args) {
    if (event === 'connection' && !letIn(args[0])) {
        args[0].destroy();
        return true;
    }
    return emit.call(this, event, ...args);
};
