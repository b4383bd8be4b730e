// NNI's manager takes a second configuration while it runs the first: later trials run the other
// trialCommand. Required by node before NNI's own code, this answers every configuration but the
// first, and every other search space, with 409 (Conflict), and the experiment goes on.
const net = require('net');

const ROUTE = /\/api\/v1\/nni\/experiment\/?$/i;

const CONFIGURED = 'the experiment has its configuration already; it goes on unchanged';
const SEARCHING = 'the search space of a running search cannot be changed; it goes on unchanged';

let isConfigured = false;

function conflict(request, response) {
    const [path, query] = request.url.split(/[?#]/);
    if (!ROUTE.test(path)) {
        return null;
    }
    const updates = new URLSearchParams(query).getAll('update_type');
    if (request.method === 'PUT' && updates.includes('SEARCH_SPACE')) {
        return SEARCHING;
    }
    if (request.method !== 'POST') {
        return null;
    }
    if (isConfigured) {
        return CONFIGURED;
    }
    isConfigured = true;
    // What was refused, such as text that is no JSON, was none.
    response.on('finish', () => {
        isConfigured = response.statusCode < 400;
    });
    return null;
}

const emit = net.Server.prototype.emit;
net.Server.prototype.emit = function (event, ...args) {
    const problem = event === 'request' ? conflict(...args) : null;
    if (problem !== null) {
        console.error(`refused ${args[0].method} ${args[0].url}: ${problem}`);
        args[1].writeHead(409, { 'Content-Type': 'application/json' });
        args[1].end(JSON.stringify({ error: problem }));
        return true;
    }
    return emit.call(this, event, ...args);
};
