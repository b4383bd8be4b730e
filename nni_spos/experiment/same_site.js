// A browser carries requests of every page that is open in it, also to this machine, where NNI's
// server would do what they ask for. Required by node before NNI's own code, this answers only
// requests for this machine by one of its own names (another name may be any site's, which points
// it here), and only those that no other site's page made; others with 403 (Forbidden).
const http = require('http');
const net = require('net');

const NAMES = /^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/;
const REQUESTS = ['request', 'checkContinue', 'checkExpectation', 'upgrade', 'connect'];

function isForThisMachine({ host, origin }) {
    const name = (host ?? '').toLowerCase();
    const isSameSite = origin === undefined || origin.toLowerCase() === `http://${name}`;
    return NAMES.test(name) && isSameSite;
}

const REFUSAL = 'Forbidden: this page is that of localhost, 127.0.0.1 or [::1], and of no other.\n';

function refuse(answer) {
    if (answer instanceof http.ServerResponse) {
        answer.writeHead(403, { 'Content-Type': 'text/plain', Connection: 'close' });
        answer.end(REFUSAL);
    } else {
        const head = ['HTTP/1.1 403 Forbidden', 'Content-Type: text/plain', 'Connection: close'];
        answer.end([...head, '', REFUSAL].join('\r\n'));
    }
}

const emit = net.Server.prototype.emit;
net.Server.prototype.emit = function (event, ...args) {
    if (REQUESTS.includes(event) && !isForThisMachine(args[0].headers)) {
        refuse(args[1]);
        return true;
    }
    return emit.call(this, event, ...args);
};
