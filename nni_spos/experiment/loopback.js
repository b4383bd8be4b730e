// NNI's server listens on every interface, without a password. Required by node before NNI's own
// code, this makes every server that names only a port listen on this machine alone.
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
    if (/^\d+$/.test(String(args[0])) && typeof args[1] !== 'string') {
        args.splice(1, 0, '127.0.0.1');
    }
    return listen.apply(this, args);
};
